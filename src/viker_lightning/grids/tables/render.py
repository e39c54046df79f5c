"""A table written down, as JSON, Markdown and a page, and shown in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from viker_lightning.metrics.statistics.intervals import FEWEST
from viker_lightning.metrics.statistics.paired import ALPHA
from viker_lightning.reporting.answers import answers_across
from viker_lightning.reporting.html import rendered
from viker_lightning.reporting.terminal import narrow_table, side_by_side
from viker_lightning.storage.files import write_text

from .measurements import (
    COSTS_NOTE,
    KEY_TOKENS,
    KEY_TOKENS_NOTE,
    cost_headings,
    costs,
    described,
    key_tokens,
    row_names,
)
from .page import write_table_page
from .paper_numbers import Source
from .sequences import sequence_record, sequence_sections
from .table import Table
from .worlds import worlds_record
from .worlds_page import APART, worlds_legend, worlds_markdown, worlds_summary

EMPTY = ""
"""What was not run stays visibly empty."""

FIRST = ("keyword_match", "coherence", "accuracy", "rouge_l")
"""Scores in the order they are shown in where there is no room for all."""


def write_table(table: Table, results: Path) -> list[Path]:
    """Writes ``<results>/<table>-<scale>.json``, ``.md`` and ``.html`` of what is finished.

    Args:
        table: however far its runs are.
        results: folder of tables.

    Returns:
        The files, the page first.
    """
    page, text, numbers = (results / f"{table.stem}.{kind}" for kind in ("html", "md", "json"))
    if table.grid.worlds:
        found = worlds_record(table)
        write_text(text, worlds_markdown(found))
    else:
        found = record(table)
        write_text(text, markdown(table))
    write_text(numbers, json.dumps(found, indent=1) + "\n")
    write_table_page(table, page)
    return [page, text, numbers]


def record(table: Table) -> dict[str, Any]:
    """Everything, for JSON: numbers, commands, what failed, and what else was tried."""
    values = {
        block: {
            name: {f"{split}/{score}": table.value(block, name, split, score) for split, score, _ in table.columns}
            for name in table.rows
        }
        for block in table.blocks
    }
    return {
        **described(table),
        "interval": "95 %, percentile bootstrap that draws whole people with the answers of all seeds; none of "
        f"fewer than {FEWEST} people",
        "reference": table.grid.reference,
        "marks": table.marks,
        "columns": [{"split": s, "score": score, "heading": heading} for s, score, heading in table.columns],
        "values": values,
        "published": [asdict(source) for source in table.sources],
        "people": {block: table.people(block) for block in table.blocks},
        **({"sequence": sequence_record(table)} if table.grid.sequence else {}),
    }


def markdown(table: Table) -> str:
    """A Markdown page: a table a block, what it is, published numbers, and the command of every run."""
    spent = costs(table)
    found = [
        ("Key tokens", KEY_TOKENS_NOTE, KEY_TOKENS, key_tokens(table), 3),
        ("Run time and memory", COSTS_NOTE, cost_headings(spent), spent, 0),
    ]
    page = {
        "table": table,
        "headings": [f"{split} {heading}" for split, _, heading in table.columns],
        "blocks": [(block, _rows(table, block), table.unmeasured(block)) for block in table.blocks],
        "sequence": [
            (one.title, one.note, one.headings, [[name, *(cell.text for cell in cells)] for name, cells in one.rows])
            for one in (sequence_sections(table) if table.grid.sequence else [])
        ],
        "measured": [
            (title, note, list(headings.values()), _measured(headings, rows, decimals))
            for title, note, headings, rows, decimals in found
            if rows
        ],
        "sources": [
            (source, [(block, _published(table, source, block)) for block in source.blocks]) for source in table.sources
        ],
    }
    return rendered("table.md", page)


def _people(table: Table, block: str) -> str:
    return ", ".join(f"{split} {count}" for split, count in table.people(block).items())


def summary(table: Table, width: int) -> list[RichTable]:
    """The numbers without intervals, for a terminal: a table a block, or one over worlds, as wide as there is room.

    Args:
        table: however far its runs are.
        width: of the terminal, in characters; keywords, coherence and choices come first, one column at least.
    """
    if table.grid.worlds:
        return [worlds_summary(worlds_record(table), width)]
    names = [table.label(block, name) for block in table.blocks for name in table.rows]
    left = width - 2 - max(map(len, names))  # the ends of the table
    fitting: list[Any] = []
    for column in sorted(table.columns, key=lambda c: FIRST.index(c[1]) if c[1] in FIRST else len(FIRST)):
        left -= 2 + max(len(column[0]), len(column[2]), len("0.00 ≠"))
        fitting += [column] if left >= 0 or not fitting else []
    columns = [column for column in table.columns if column in fitting]
    shown = []
    for block in table.blocks:
        title = ": ".join(part for part in (block or table.grid.title, f"{_people(table, block)} people") if part)
        one = narrow_table(title)
        for split, _, heading in columns:
            one.add_column(f"{split}\n{heading}", justify="right", no_wrap=True)
        for name in table.rows:
            values = [table.value(block, name, split, score) for split, score, _ in columns]
            one.add_row(table.label(block, name), *map(_shown, values))
        shown.append(one)
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
            rows = [
                {"person": f"{group['split']} {person['person']}", **_example(question)}
                for group in answers_across(models, {"forget": 1, "retain": 1}, 3)
                for person in group["people"]
                for question in person["questions"]
            ]
            return side_by_side(rows, f"before and after {table.grid.reference}{block and ', ' + block}")
    return None


def _example(question: dict[str, Any]) -> dict[str, str]:
    texts = {"answer": question["reference"]} | {when: answer["parts"] for when, answer in question["answers"]}
    joined = {name: "".join(text for text, _ in parts) for name, parts in texts.items()}
    return {"question": question["question"]} | joined


def _shown(value: dict[str, Any] | None) -> Text:
    if value is None:
        return Text("-")
    style = {"best": "bold", "second": "underline"}.get(value["rank"], "")
    return Text.assemble((f"{value['mean']:.2f}", style), f" {APART}" if _differs(value) else "  ")


def _differs(value: dict[str, Any]) -> bool:
    """Whether a cell of the table differs from the reference."""
    return value["p"] is not None and value["p"] <= ALPHA


def _rows(table: Table, block: str) -> list[list[str]]:
    places = [(split, score) for split, score, _ in table.columns]
    return [[table.label(block, name), *(_cell(table.value(block, name, *at)) for at in places)] for name in table.rows]


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return EMPTY
    mark = {"best": "**", "second": "_"}.get(value["rank"], "")
    text = f"{mark}{value['mean']:.2f}{mark}" + f" {APART}" * _differs(value)
    return text if value["low"] is None else f"{text} [{value['low']:.2f}, {value['high']:.2f}]"


def _measured(headings: Iterable[str], rows: list[dict[str, Any]], decimals: int) -> list[list[str]]:
    found = []
    for name, row in zip(row_names(rows), rows, strict=True):
        cells = [f"{row[key]:.{decimals}f}" if key in row else EMPTY for key in headings]
        found.append([name, str(row["runs"]), *cells])
    return found


def _published(table: Table, source: Source, block: str) -> list[list[str]]:
    """Published numbers, with the difference to ours where they compare."""
    found = []
    for row in source.blocks[block]:
        places = [(block, row, column) for column in source.columns]
        found.append([row, *(_difference(source.value(*at), table.difference(source, *at)) for at in places)])
    return found


def _difference(theirs: float | None, difference: float | None) -> str:
    if theirs is None:
        return EMPTY
    return f"{theirs:.3f}" if difference is None else f"{theirs:.3f} (ours {difference:+.3f})"
