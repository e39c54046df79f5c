"""How time, memory and scores grow with the number of people: the same methods on embedded benchmarks of four sizes.

    python studies/growth.py [--runs runs/growth] [--jobs 2]

Every run takes as many steps for a person as its config does with forty people. Finished runs are kept, stopped ones go
on. Writes ``growth.json`` and ``growth.md`` beside this file.
"""

from __future__ import annotations

import platform
import textwrap
from pathlib import Path
from typing import Any

import finished

from viker_lightning.grids import Cell
from viker_lightning.grids.grid import config_option
from viker_lightning.jobs.job import State
from viker_lightning.jobs.runner import run_jobs

SIZES = {"mini/ci": (12, 2), "mini/default": (40, 4), "mini/large": (100, 10), "mini/larger": (190, 19)}
"""How many people each benchmark has, and how many of them are forgotten."""

CONFIGURED_FOR = 40
"""How many people the configs are for."""

MODELS = {"Vanilla": "vanilla", "Gold": "gold"}
METHODS = {"NPO": "npo", "ViKeR": "viker", "Stranger": "stranger"}
COLUMNS = {
    "test/keyword_match": "test Keywords",
    "test/accuracy": "test MC",
    "test/kl_gold": "test KL to gold",
    "test/well_formed": "test Well formed",
    "retain/keyword_match": "retain Keywords",
    "real/keyword_match": "real Keywords",
}


def cells(runs: Path) -> tuple[list[Cell], list[Cell]]:
    """Runs of vanilla and gold models, and runs of methods, which start from those."""
    models, methods = [], []
    for size, (people, _) in SIZES.items():
        made: dict[str, Cell] = {}
        for row, name in {**MODELS, **METHODS}.items():
            config = f"configs/mini/{name}.yaml"
            steps = max(1, round(config_option(config, "trainer.max_steps") * people / CONFIGURED_FOR))
            options: dict[str, Any] = {"data.root": size, "data.max_people": 12, "trainer.max_steps": steps}
            if row in METHODS:
                folders = {"model.vanilla": made["Vanilla"].folder, "evaluation.gold": made["Gold"].folder}
                options |= {key: str(folder) for key, folder in folders.items()}
            folder = runs / f"{size.replace('/', '-')}-{name}"
            gold = made["Gold"] if row in METHODS else None
            made[row] = Cell("growth", f"{people} people", row, 0, config, options, folder, gold)
            (methods if row in METHODS else models).append(made[row])
    return models, methods


def measured(cell: Cell) -> dict[str, Any]:
    """Steps, seconds, memory and scores of a finished run."""
    noted = cell.note()
    return {
        "steps": cell.options["trainer.max_steps"],
        "seconds": noted.get("seconds"),
        "peak_memory_mib": round((noted.get("peak_memory_bytes") or 0) / 2**20),
        **finished.scores(cell, COLUMNS),
    }


def markdown(record: dict[str, Any]) -> str:
    """The page of a record."""
    columns = {"steps": "steps", "seconds": "seconds", "peak_memory_mib": "peak MiB", **COLUMNS}
    lines = [
        "# Growth with the number of people",
        "",
        textwrap.fill(
            f"Made by `python studies/growth.py`. CPU ({record['processor']}), one thread a run, {record['jobs']} "
            "runs at a time. Embedded benchmarks and embedded LLaVA of 1.8 M parameters, one world a size, seed 0. A "
            "run takes as many steps for a person as its config does with 40 people. Seconds and memory are of the "
            "whole run, with start and evaluation of up to 12 people a split. "
            f"Commits: {', '.join(one[:9] for one in record['commits'])}.",
            100,
        ),
        "",
        f"| people | forgotten | | {' | '.join(columns.values())} |",
        f"|{'---|' * (3 + len(columns))}",
    ]
    for row in record["rows"]:
        cells = [row["people"], row["forgotten"], row["run"], *(_text(key, row[key]) for key in columns)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _text(key: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if key in COLUMNS else f"{value:.0f}"


def main() -> int:
    """Runs what is left and writes the page."""
    arguments = finished.options(str(__doc__), "runs/growth")
    models, methods = cells(arguments.runs)
    if run_jobs(models, arguments.jobs) or run_jobs(methods, arguments.jobs):
        return 1
    rows = [
        {"people": people, "forgotten": forgotten, "run": cell.row, **measured(cell)}
        for people, forgotten in SIZES.values()
        for cell in [*models, *methods]
        if cell.block == f"{people} people" and cell.state() == State.FINISHED
    ]
    commits = finished.commits([*models, *methods])
    record = {"processor": platform.machine(), "jobs": arguments.jobs, "commits": commits, "rows": rows}
    finished.write("growth", record, markdown)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
