"""A table as one self-contained page, in the look of a run's report."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from viker_lightning.reporting import Estimate, numbers_of
from viker_lightning.reporting.answers import answers_across, token_views
from viker_lightning.reporting.contenders import Contender, Place, disagreements
from viker_lightning.reporting.curves import sweep_plot
from viker_lightning.reporting.history import compared, weights
from viker_lightning.reporting.html import trade_off, write_page
from viker_lightning.runs import Run

from .cells import Cell, State
from .facts import COSTS_NOTE, KEY_TOKENS, KEY_TOKENS_NOTE, costs, key_tokens, measured
from .table import Table

PEOPLE = {"forget": 2, "test": 1, "retain": 1}
"""How many people's answers are shown of each block, and of how many questions."""

QUESTIONS = 3
TOKEN_ANSWERS = 4
"""How many forget answers are shown token by token."""


def write_table_page(table: Table, file: Path) -> Path:
    """Writes ``<results>/<table>-<scale>.html``: numbers, trade-off or sweep, answers, tokens, curves, cost, commands.

    Args:
        table: of a grid, however far its runs are.
        file: the page.

    Raises:
        UserError: if a file of a run is not what it must be.
    """
    grid = table.grid
    tuning = json.loads(Path(grid.tuning).read_text(encoding="utf-8")) if grid.tuning else []
    runs = [run for block in table.blocks for name in grid.rows for run in table.runs(block, name)[1]]
    about = {name: one.sentence for name, one in numbers_of(runs).items()}
    page = {
        "title": grid.title,
        "grid": grid,
        "marks": table.marks,
        "blocks": [_block(table, number, block) for number, block in enumerate(table.blocks)],
        "facts": {"costs": costs(table), "key_tokens": key_tokens(table)},
        "headings": KEY_TOKENS,
        "cost_headings": measured(costs(table)),
        "notes": {"costs": COSTS_NOTE, "key_tokens": KEY_TOKENS_NOTE},
        "sources": [(source, table.comparable(source)) for source in table.sources],
        "difference": table.difference,
        "tuning": sorted(tuning, key=lambda tried: (tried["method"], -tried.get("seeds", 1), -tried["score"])),
        "tokens": _tokens(runs),
        "runs": [_run(cell, file.parent) for cell in table.cells],
        "made_with": table.made_with(),
        "columns": [(split, heading[:-2], heading[-1], about.get(score)) for split, score, heading in table.columns],
    }
    return write_page(file, "table.html", page)


def _block(table: Table, number: int, block: str) -> dict[str, Any]:
    models = table.contenders[block]
    columns = table.columns
    ordered = sorted(models, key=lambda model: ("vanilla", "gold", "floor", "method").index(model.kind))
    rows = [(model, [_cell(table, block, model, split, score) for split, score, _ in columns]) for model in ordered]
    moments = {name: table.runs(block, name) for name in table.grid.rows}
    methods = {m.name: m.runs for m in models if m.kind == "method"}
    asked = [(name, found[0], when) for name, (when, found) in moments.items() if found]
    return {
        "name": block,
        "id": f"block-{number}",
        "rows": rows,
        "asked": table.asked(block),
        "empty": [name for name in table.grid.rows if name not in {model.name for model in models}],
        "disagreements": disagreements([run for _, runs in moments.values() for run in runs]),
        "trade_off": None if table.grid.figure else trade_off(models, block),
        "sweep": _sweep(table, block) if table.grid.figure else None,
        "curves": compared(methods, block),
        "weights": [(row, found) for row, mine in methods.items() if (found := weights(mine, f"{block} {row}"))],
        "answers": answers_across(asked, PEOPLE, QUESTIONS),
        "answers_of": {name: run.seed for name, run, _ in asked},
    }


def _cell(table: Table, block: str, model: Contender, split: str, score: str) -> tuple[Any, Place]:
    return table.estimate(block, model.name, split, score), table.place(block, model.name, split, score)


def _sweep(table: Table, block: str) -> Any:
    """Scores over what was swept; ``None`` if nothing was measured."""
    wanted, models = table.grid.figure, {model.name: model for model in table.contenders[block]}
    series: dict[str, list[tuple[float, Estimate]]] = {}
    golds: dict[str, float] = {}
    for column in wanted["y"]:
        split, _, score = column.partition("/")
        name = f"{split}: {score.replace('_', ' ')}"
        found = [
            (float(x), e)
            for row, x in wanted["x"].items()
            if row in models and (e := models[row].estimate(split, score))
        ]
        if found:
            series[name] = found
            gold = models[table.grid.gold].estimate(split, score) if table.grid.gold in models else None
            golds |= {name: gold.value} if gold else {}
    title = f"Scores over {wanted['label']}{block and ', ' + block}"
    return sweep_plot(series, golds, title, wanted["label"], bool(wanted.get("log"))) if series else None


def _tokens(runs: Sequence[Run]) -> tuple[str, list[dict[str, Any]]] | None:
    """The method whose ideal distribution is shown, and some forget answers token by token."""
    last = next((run for run in reversed(runs) if run.key_tokens), None)
    return (last.method, token_views(last)[:TOKEN_ANSWERS]) if last else None


def _run(cell: Cell, beside: Path) -> dict[str, Any]:
    report = cell.folder / "report.html"
    note, failed = cell.note(), cell.state() == State.FAILED
    return {
        "title": cell.title,
        "state": cell.state().value,
        "seconds": note.get("seconds"),
        "command": cell.command,
        "report": Path(os.path.relpath(report, beside)).as_posix() if report.is_file() else None,
        "complaint": cell.complaint() if failed else "",
    }
