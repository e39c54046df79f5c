"""Copies tables into docs/results, their columns into README.md and docs/results*.md, the scores into docs/metrics.md.

A comment above each table says what it shows:

    <!-- table: mllmu-mini | 10 % | test MC, test Keywords | intervals -->

the file, the heading in it (empty: the first table), the columns, and ``intervals`` where these and the marks of
methods are kept. ``worlds-mini + attacks/worlds-mini | Over worlds + Leaked`` has two files side by side.
``<!-- scores: gold -->`` is a section of the table in ``viker_lightning/metrics/scores.py``.
``python docs/tables.py`` rewrites all tables; a test runs it and finds nothing to change. ``python docs/tables.py
results/worlds-mini`` first copies that table, with its figures, from where ``make worlds`` has left it, and
``results/attacks-worlds-mini``, which ``make table-attacks`` has left, to ``results/attacks/worlds-mini``.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from viker_lightning.metrics import SECTIONS

DOCS = Path(__file__).resolve().parent
RESULTS = tuple(DOCS / f"results{theme}.md" for theme in ("", "_methods", "_attacks", "_settings"))
PAGES = (DOCS.parent / "README.md", *RESULTS, DOCS / "metrics.md")
TABLE = re.compile(r"<!-- table: (.+?) \|(.*?)\| (.+?)(\| intervals)? -->\n\n((?:\|.*\n)*)")
SCORES = re.compile(r"(<!-- scores: (.+?) -->\n\n)(?:\|.*\n)*")
ATTACKS = "attacks-"
GOOD = {"gold": "near gold", "before": "near before", "none": "-"}


def scores(section: str) -> str:
    """What the numbers of a section are, as Markdown."""
    rows = [["name", "what", "range", "good", "source"], ["---"] * 5]
    for one in SECTIONS[section]:
        rows.append([f"`{one.name}`", one.about, one.range, GOOD.get(one.good, one.good), one.source])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def table(file: str, heading: str, columns: list[str], intervals: bool) -> str:
    """Columns of a table, as Markdown; several files and headings, with ``+`` between them, stand beside each other.

    Raises:
        KeyError: a file has not the heading, or none the column.
    """
    first, *beside = (rows(*one) for one in zip(file.split(" + "), heading.split(" + "), strict=True))
    for other in beside:  # of attacks: what comes out of the run stands before the comma
        new = other[""].keys() - first[""].keys()
        for name, cells in other.items():
            first.get(name, {}).update({column: cells[column].partition(",")[0] for column in new})
    there = {column for name, cells in first.items() if name for column in cells}
    if missing := [column for column in columns if column not in there]:
        raise KeyError(missing[0])
    kept = [[next(iter(of.values())), *(of.get(column, "") for column in columns)] for of in first.values()]
    if not intervals:
        kept = [[re.sub(r" \[.*\]| ≠|\*\*|(?<!\w)_|_(?!\w)", "", cell) for cell in line] for line in kept]
    kept[1] = ["---"] * len(kept[0])
    return "".join(f"| {' | '.join(line)} |\n" for line in kept)


def rows(file: str, heading: str) -> dict[str, dict[str, str]]:
    """Cells of the table under a heading, by row and column; the row of headings is ``""``, the next one the rule."""
    blocks = re.split(r"^## (.+)$", (DOCS / f"results/{file}.md").read_text("utf-8"), flags=re.MULTILINE)
    text = dict(zip(["", *blocks[1::2]], blocks[::2], strict=True))[heading]
    lines = [[cell.strip() for cell in line[2:-1].split("|")] for line in re.findall(r"^\|.*", text, re.MULTILINE)]
    names = [cell.rstrip(" ↑↓★·") for cell in lines[0]]
    return {"" if line is lines[0] else line[0]: dict(zip(names, line, strict=True)) for line in lines}


def keep(stem: Path, results: Path = DOCS / "results") -> list[Path]:
    """Copies a table to the pages: Markdown, the record of worlds and attacks, and what is drawn of scores.

    Args:
        stem: of its files, as ``results/worlds-mini``.
        results: folder of the pages.

    Returns:
        The copies.

    Raises:
        FileNotFoundError: there is no such table.
    """
    if stem.name.startswith(ATTACKS):
        to = results / "attacks" / stem.name.removeprefix(ATTACKS)
        return [Path(shutil.copy(stem.with_suffix(kind), to.with_suffix(kind))) for kind in (".md", ".json")]
    files = [stem.with_suffix(".md"), *sorted((stem.parent / "figures").glob(f"{stem.name}*.svg"))]
    record = stem.with_suffix(".json")
    files += [record] * (record.is_file() and "measured" in json.loads(record.read_text("utf-8")))
    chosen = [file for file in files if not file.stem.endswith(("-cost", "-key-tokens"))]
    copies = [Path(shutil.copy(file, results / file.name)) for file in chosen]
    page = results / f"{stem.name}.md"
    page.write_text(page.read_text("utf-8").replace("](figures/", "]("), "utf-8")  # figures lie beside it there
    return copies


def renew(text: str) -> str:
    """A page with its tables as the results are now."""

    def one(found: re.Match[str]) -> str:
        file, heading, columns, intervals, old = found.groups()
        names = [name.strip() for name in columns.split(",")]
        behind = "" if text[found.end() :].startswith("\n") else "\n"  # else what follows would be rows of the table
        return found[0].removesuffix(old) + table(file, heading.strip(), names, bool(intervals)) + behind

    return SCORES.sub(lambda found: found[1] + scores(found[2]), TABLE.sub(one, text))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        keep(Path(name))
    for page in PAGES:
        page.write_text(renew(page.read_text("utf-8")), "utf-8")
