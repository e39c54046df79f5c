"""Do the ends of the tuned spaces bind? The best setting of a method at an end, with that option moved beyond it.

    python studies/edges.py [--runs runs/edges] [--jobs 2]

A number at an end is multiplied or divided by the square root of two, and by two; at the end of a list of numbers the
next one follows. Runs are made and scored as by ``make tune``, on the worlds of ``docs/results/tuning-mini.json``.
Finished runs are kept, stopped ones go on. Writes ``edges.json`` and ``edges.md`` beside this file.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import finished

from viker_lightning.grids.cells import Cell
from viker_lightning.grids.grid import Row
from viker_lightning.grids.tuning.closeness import closeness
from viker_lightning.grids.tuning.spaces import Choices, Range, Spaces, read_spaces
from viker_lightning.grids.tuning.tune import models_of, scores_of, world_grid
from viker_lightning.jobs.runner import run_jobs

SPACES, RECORD = Path("experiments/tuning/spaces.yaml"), Path("docs/results/tuning-mini.json")

FACTORS = {"high": (2**0.5, 2.0), "low": (2**-0.5, 0.5)}
"""What a number at an end is multiplied by."""

NO_MORE = {
    "model.method.layer": "it is the model's last",
    "model.method.last_layer": "it is the model's last",
    "model.method.first_layer": "a single layer would be left: not tried",
    "model.method.rounds": "there is no less than one",
}
"""Options at an end beyond which nothing is tried, and why."""

CHOSEN = {"model.method.k": {"high": (80,)}}
"""What follows at an end of a list."""


def beyond(option: str, at: Any, end: str, space: Range | Choices) -> tuple[Any, ...]:
    """Values beyond the end of a space; none where nothing is tried.

    Args:
        option: whose.
        at: the best value, near the end.
        end: ``high`` or ``low``.
        space: of the option.
    """
    if option in NO_MORE:
        return ()
    if isinstance(space, Choices):
        return CHOSEN[option][end]
    return tuple(round(at * f) if space.int else float(f"{at * f:.3g}") for f in FACTORS[end])


def best_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The best trial of a method's entry in the record."""
    return next(one for one in entry["trials"] if one["number"] == entry["best"])


def not_tried(record: dict[str, Any]) -> dict[str, str]:
    """Why nothing is tried beyond an end, by method and option."""
    ends = {f"{m} {o}": o for m, of in record["methods"].items() for o, end in of["edges"].items() if end}
    return {name: NO_MORE[option] for name, option in ends.items() if option in NO_MORE}


def rows(spaces: Spaces, record: dict[str, Any]) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """Method, option, value beyond the end, and the whole setting, for every end that a best setting is at."""
    for method, entry in record["methods"].items():
        best = best_of(entry)["setting"]
        for option, end in entry["edges"].items():
            values = beyond(option, best[option], end, spaces.methods[method][option]) if end else ()
            for value in values:
                yield method, option, value, best | {option: value}


def measured(cells: Mapping[tuple[str, str], Cell], row: str, worlds: list[str]) -> list[float]:
    """The score of a row in every world, low is good."""
    return [closeness(scores_of(cells[world, row], "after"), models_of(cells, world)).score for world in worlds]


def markdown(record: dict[str, Any]) -> str:
    """The page of a record."""
    about = (
        f"Made by `python studies/edges.py` on worlds {' and '.join(record['worlds'])}. The best setting of each "
        "method that ended at an end of its space, with that option moved beyond it. The score is that of tuning, low "
        f"is good; in brackets its values by world. Commits: {', '.join(one[:9] for one in record['commits'])}."
    )
    lines = ["# Beyond the ends of the tuned spaces", "", textwrap.fill(about, 100), ""]
    lines += ["| method | option | best | beyond | score of the best | score beyond |", "|---|---|---|---|---|---|"]
    for row in record["rows"]:
        best, there = _score(row["best score"]), _score(row["score"])
        lines.append(f"| {row['method']} | {row['option']} | {row['best']} | {row['value']} | {best} | {there} |")
    left = "; ".join(f"{name} ({why})" for name, why in record["not tried"].items())
    return "\n".join([*lines, "", textwrap.fill(f"At an end, too, and not moved: {left}.", 100)]) + "\n"


def _score(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f} ({', '.join(f'{one:.3f}' for one in values)})"


def main() -> int:
    """Runs what is left and writes the page."""
    arguments = finished.options(str(__doc__), "runs/edges")
    spaces, record = read_spaces(SPACES), json.loads(RECORD.read_text("utf-8"))
    tried = {f"{one[0]} {one[1]} {one[2]}": one for one in rows(spaces, record)}
    worlds = [str(one) for one in next(iter(record["methods"].values()))["worlds"]]
    made = {name: Row(name, spaces.config(method), of) for name, (method, _, _, of) in tried.items()}
    cells = world_grid(spaces, [int(one) for one in worlds], made).cells(arguments.runs)
    if run_jobs(cells, arguments.jobs):
        return 1
    by = {(cell.block, cell.row): cell for cell in cells}
    found = []
    for name, (method, option, value, _) in tried.items():
        best = best_of(record["methods"][method])
        noted = {"method": method, "option": option, "best": best["setting"][option], "value": value}
        before = [best["worlds"][world]["score"] for world in worlds]
        found.append(noted | {"best score": before, "score": measured(by, name, worlds)})
    commits = finished.commits(cell for cell in cells if cell.row in tried)
    page = {"worlds": worlds, "commits": commits, "rows": found, "not tried": not_tried(record)}
    finished.write("edges", page, markdown)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
