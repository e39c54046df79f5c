"""A table as one self-contained page, in the look of a run's report."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from viker_lightning.reporting import numbers_of
from viker_lightning.reporting.answers import answers_across, token_views
from viker_lightning.reporting.contenders import disagreements
from viker_lightning.reporting.history import method_curves, weights
from viker_lightning.reporting.html import number, trade_off, write_page
from viker_lightning.reporting.plots import svg
from viker_lightning.reporting.section import Section
from viker_lightning.storage.runs import Run, names

from ..cells import Cell
from .figures import sequence_figure, swept, worlds_figure
from .measurements import costs, key_tokens, measured_sections
from .published_numbers import Source
from .sequences import sequence_sections
from .table import Table
from .worlds import worlds_record
from .worlds_page import missing_notes, sections

PEOPLE = {"forget": 2, "test": 1, "retain": 1}
"""How many people's answers are shown of each block, and of how many questions."""

QUESTIONS = 3
TOKEN_ANSWERS = 4
"""How many forget answers are shown token by token."""


def write_table_page(table: Table, file: Path) -> Path:
    """Writes a table's page: numbers, trade-off or sweep, answers, tokens, curves, cost, commands."""
    runs = [run for _, run in table.finished_runs()]
    shown = table.blocks[:1] if table.grid.worlds else table.blocks  # answers and curves of one world say enough
    about = {name: one.sentence for name, one in numbers_of(runs).items()}
    page = {
        "title": table.grid.title,
        "table": table,
        "marks": table.marks,
        "worlds": _worlds(table) if table.grid.worlds else None,
        "sequence": _sequence(table) if table.grid.sequence else None,
        "blocks": [_block(table, number, block) for number, block in enumerate(shown)],
        "measurements": {one.title: one for one in measured_sections(key_tokens(table), costs(table))},
        "sources": [(one, table.comparable(one), published_sections(table, one)) for one in table.sources],
        "tuning": _settings_tried(table),
        "tokens": _tokens(runs),
        "runs": [_run(*run, file.parent) for run in table.runs],
        "made_with": table.made_with(),
        "columns": [(split, heading[:-2], heading[-1], about.get(score)) for split, score, heading in table.columns],
    }
    return write_page(file, "table.html", page)


def _block(table: Table, number: int, block: str) -> dict[str, Any]:
    models = [*table.contenders[block].values()]
    ordered = sorted(models, key=lambda model: ("vanilla", "gold", "floor", "method").index(model.kind))
    rows = []
    for model in ordered:
        at = [(block, model.name, split, score) for split, score, _ in table.columns]
        rows.append((model, [(table.estimate(*cell), table.place(*cell)) for cell in at]))
    moments = {name: table.read_runs(block, name) for name in table.rows}
    methods = {m.name: m.runs for m in models if m.kind == "method"}
    label = table.grid.figure.get("label")
    asked = [(name, runs[0], when) for name, (when, runs) in moments.items() if runs]
    return {
        "name": block,
        "id": f"block-{number}",
        "rows": rows,
        "people": table.people_note(block),
        "unmeasured": table.unmeasured(block),
        "empty": [name for name in table.rows if name not in {model.name for model in models}],
        "disagreements": disagreements([run for _, runs in moments.values() for run in runs]),
        "trade_off": None if table.grid.figure else trade_off(models, block),
        "sweep": _plot(swept(table, block), f"Scores over {label}{block and ', ' + block}") if label else None,
        "curves": method_curves(methods, block),
        "weights": [(row, plot) for row, mine in methods.items() if (plot := weights(mine, f"{block} {row}"))],
        "answers": answers_across(asked, PEOPLE, QUESTIONS),
        "answers_of": {name: run.seed for name, run, _ in asked},
    }


def _worlds(table: Table) -> dict[str, Any]:
    """What takes the place of a table a block where blocks are worlds."""
    record = worlds_record(table)
    plot = _plot(worlds_figure(record), f"{table.grid.title}: every world")
    shown = {"sections": sections(record), "plot": plot}
    return shown | {"missing": missing_notes(record), "unmeasured": record["unmeasured"]}


def _sequence(table: Table) -> dict[str, Any]:
    """What stands below the tables of blocks where these are requests."""
    plot = _plot(sequence_figure(table), f"{table.grid.title}: from request to request")
    return {"sections": sequence_sections(table), "plot": plot}


def _plot(figure: Figure | None, title: str) -> Markup | None:
    return svg(figure, title) if figure else None


def published_sections(table: Table, source: Source) -> list[Section]:
    """Published numbers, a table a block, with the difference to ours where they compare."""
    found = []
    for block, methods in source.blocks.items():
        rows = []
        for name in methods:
            at = [(block, name, column) for column in source.columns]
            rows.append([name, *(_published(source.value(*one), table.difference(source, *one)) for one in at)])
        found.append(Section("", [block, *source.columns], rows))
    return found


def _published(theirs: float | None, difference: float | None) -> str:
    if theirs is None:
        return ""
    return f"{theirs:.3f}" if difference is None else f"{theirs:.3f} (ours {difference:+.3f})"


def _settings_tried(table: Table) -> Section | None:
    """Every setting in the record of tuning; ``None`` where there is none."""
    parts = ("score", "forgetting", "retention")
    rows = []
    for one in table.settings_tried or []:
        setting = " ".join(f"`{option}={value}`" for option, value in one["setting"].items())
        rows.append([one["method"], *(number(one[part]) for part in parts), setting])
    return Section("Settings tried", ["method", *parts, "setting"], rows, words=["setting"]) if rows else None


def _tokens(runs: Sequence[Run]) -> tuple[str, list[dict[str, Any]]] | None:
    """The method whose ideal distribution is shown, and some forget answers token by token."""
    last = next((run for run in reversed(runs) if run.key_tokens), None)
    return (last.method, token_views(last)[:TOKEN_ANSWERS]) if last else None


def _run(cell: Cell, run: dict[str, Any], beside: Path) -> dict[str, Any]:
    report = cell.folder / names.REPORT
    place = Path(os.path.relpath(report, beside)).as_posix() if report.is_file() else None
    return {"error": ""} | run | {"title": cell.title, "report": place}
