"""A table written down, as JSON, Markdown and a page, and shown in a terminal."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from viker_lightning.metrics.statistics.intervals import FEWEST
from viker_lightning.metrics.statistics.paired import ALPHA
from viker_lightning.reporting.answers import answers_across
from viker_lightning.reporting.section import APART, Cell, Section, by_importance, markdown, terminal
from viker_lightning.reporting.terminal import side_by_side
from viker_lightning.storage.files import write_text

from .measurements import KEY_TOKENS, described, ending_sections, key_tokens, measured_sections, run_title, seconds
from .page import published_sections, write_table_page
from .sequences import sequence_record, sequence_sections
from .table import Table
from .worlds import worlds_record
from .worlds_page import worlds_legend, worlds_markdown, worlds_summary

FIRST = ("keyword_match", "coherence", "accuracy", "rouge_l")
"""Scores in the order they are shown in where there is no room for all."""


def write_table(table: Table, results: Path) -> list[Path]:
    """Writes and returns ``<results>/<table>-<scale>.html``, ``.md`` and ``.json``, of what is finished."""
    page, text, numbers = (results / f"{table.stem}.{kind}" for kind in ("html", "md", "json"))
    if table.grid.worlds:
        found = worlds_record(table)
        write_text(text, worlds_markdown(found))
    else:
        found = record(table)
        write_text(text, table_markdown(table))
    write_text(numbers, json.dumps(found, indent=1) + "\n")
    write_table_page(table, page)
    return [page, text, numbers]


def record(table: Table) -> dict[str, Any]:
    """Everything, for JSON: numbers, commands, what failed, and what else was tried."""

    def values(block: str, name: str) -> dict[str, Any]:
        return {f"{split}/{score}": table.value(block, name, split, score) for split, score, _ in table.columns}

    return {
        **described(table),
        "interval": "95 %, percentile bootstrap that draws whole people with the answers of all seeds; none of "
        f"fewer than {FEWEST} people",
        "reference": table.grid.reference,
        "marks": table.marks,
        "columns": [{"split": s, "score": score, "heading": heading} for s, score, heading in table.columns],
        "values": {block: {name: values(block, name) for name in table.rows} for block in table.blocks},
        "published": [asdict(source) for source in table.sources],
        "people": {block: table.people(block) for block in table.blocks},
        **({"sequence": sequence_record(table)} if table.grid.sequence else {}),
    }


def table_markdown(table: Table) -> str:
    """A Markdown page: a table a block, what it is, published numbers, and the command of every run."""
    grid, about = table.grid, described(table)
    parts: list[Section | str] = [
        f"# {grid.title}",
        f"Scale `{grid.scale}`, {grid.seeds} seed{'s' * (grid.seeds > 1)}. {grid.note}",
        "Mean over seeds with its 95 % interval over people (whole people drawn, with the answers of all seeds; none "
        f"of fewer than {FEWEST} people). ↓ low, ↑ high, ★ near gold is good; **bold** is best, _underlined_ second. "
        + table.marks,
        *(_numbers(table, block) for block in table.blocks),
        *(sequence_sections(table) if grid.sequence else []),
        *measured_sections(about["key_tokens"], about["costs"]),
    ]
    for source in table.sources:
        where = "second-hand" if source.second_hand else "read in the paper"
        note = f"{source.setting} {table.comparable(source)}"
        parts += [Section(f"Published: {source.source} ({where})", note=note), *published_sections(table, source)]
    runs = []
    for run in about["runs"]:
        memory = str(run["peak_memory_bytes"] // 2**20) if run["peak_memory_bytes"] else ""
        runs.append([run_title(run), run["state"], seconds(run), memory, f"`{run['command']}`"])
    shown = Section("Runs", ["run", "state", "seconds", "peak memory MiB", "command"], runs)
    return markdown(parts + ending_sections(about, shown))


def _numbers(table: Table, block: str) -> Section:
    rows = []
    for name in table.rows:
        values = [table.value(block, name, split, score) for split, score, _ in table.columns]
        rows.append([Cell(table.label(block, name)), *map(_cell, values)])
    headings = ["", *(f"{split} {heading}" for split, _, heading in table.columns)]
    return Section(block, headings, rows, below=[table.people_note(block), table.unmeasured(block)])


def summary(table: Table, width: int) -> list[RichTable]:
    """The numbers without intervals, for a terminal: a table a block, or one over worlds, as wide as there is room.

    Args:
        table: however far its runs are.
        width: of the terminal, in characters; keywords, coherence and choices come first, one column at least.
    """
    if table.grid.worlds:
        return [worlds_summary(worlds_record(table), width)]
    order = by_importance([score for _, score, _ in table.columns], FIRST)
    headings = ["", *(f"{split}\n{heading}" for split, _, heading in table.columns)]
    shown = []
    for block in table.blocks:
        people = ", ".join(f"{split} {count}" for split, count in table.people(block).items())
        title = ": ".join(part for part in (block or table.grid.title, f"{people} people") if part)
        shown.append(terminal(replace(_numbers(table, block), title=title, columns=headings), width, order))
    return shown


def legend(table: Table) -> str:
    """What the signs of :func:`summary` mean, in a line, and why cells are empty, if any is."""
    if table.grid.worlds:
        return worlds_legend(worlds_record(table))
    test = f"{APART} differs from {table.grid.reference} (exact sign-flip test, Holm, {100 * ALPHA:g} %)"
    signs = f"★ near gold is good; bold best, underlined second of the methods; {test}"
    return "\n".join([signs, *dict.fromkeys(filter(None, map(table.unmeasured, table.blocks)))])


def key_token_note(table: Table) -> str:
    """How well key-token entropy finds private tokens, in a line for each row that knows; empty if none does."""
    lines = []
    for row in key_tokens(table):
        where = ", ".join(part for part in (row["block"], row["row"]) if part)
        scores = [f"{KEY_TOKENS[key]} {row[key]:.3f}" for key in ("auroc", "auroc_first") if key in row]
        lines.append(f"Key-token entropy ({where}): {'; '.join(scores)}")
    return "\n".join(lines)


def example_answers(table: Table) -> RichTable | None:
    """What vanilla and the reference method say of a person to forget and one to keep, in the first block with both."""
    vanilla = next((name for name, kind in table.rows.items() if kind == "vanilla"), "")
    if not vanilla or not table.grid.reference:
        return None
    for block in table.blocks:
        (when, before), (_, after) = (table.read_runs(block, name) for name in (vanilla, table.grid.reference))
        if before and after:
            models = [("before", before[0], when), ("after", after[0], "after")]
            rows = []
            for group in answers_across(models, {"forget": 1, "retain": 1}, 3):
                for person in group["people"]:
                    who = {"person": f"{group['split']} {person['person']}"}
                    rows += [who | _example(question) for question in person["questions"]]
            return side_by_side(rows, f"before and after {table.grid.reference}{block and ', ' + block}")
    return None


def _example(question: dict[str, Any]) -> dict[str, str]:
    texts = {"answer": question["reference"]} | {when: answer["parts"] for when, answer in question["answers"]}
    joined = {name: "".join(text for text, _ in parts) for name, parts in texts.items()}
    return {"question": question["question"]} | joined


def _cell(value: dict[str, Any] | None) -> Cell:
    if value is None:
        return Cell()
    sign = APART if value["p"] is not None and value["p"] <= ALPHA else ""
    ends = "" if value["low"] is None else f"[{value['low']:.2f}, {value['high']:.2f}]"
    return Cell(f"{value['mean']:.2f}", value["rank"], sign, ends)
