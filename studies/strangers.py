"""What if strangers resemble the people to be forgotten, or each other? Stranger over the eight embedded worlds.

    python studies/strangers.py [--runs runs/tables] [--jobs 2]

Gold models and Stranger as shipped are those of ``make worlds``. Finished runs are kept, stopped ones go on. Writes
``strangers.json`` and ``strangers.md`` beside this file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import finished

from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.data.embedded import portraits
from viker_lightning.data.embedded.write_mllmu import SIZES
from viker_lightning.grids import Cell, Grid, read_grid
from viker_lightning.jobs.runner import run_jobs
from viker_lightning.metrics.statistics.paired import holm, sign_flip

PICTURES = 40
"""As many as Stranger draws on the embedded benchmark."""

SHARED = 4
"""Of head, facial hair, accessories, skin and clothing, what somebody alike has in common with a person at least."""

COLUMNS = {
    "test/keyword_match": "test Keywords",
    "test/accuracy": "test MC",
    "test/kl_gold": "test KL to gold",
    "retain/keyword_match": "retain Keywords",
    "real/keyword_match": "real Keywords",
}


def faces(seed: str) -> dict[str, str]:
    """The face of everybody of a world, by ID."""
    size = SIZES["default"]
    everybody = portraits.cast(f"mini/{seed}", size.people + size.real)
    return {f"{n:03d}": face for n, face in enumerate(everybody[: size.people], 1)}


def alike(people: list[str], seed: str) -> Iterator[tuple[str, int]]:
    """Faces of nobody, each like one of some people in turn, and a view of each."""
    for number in count():
        wanted = portraits.identity(people[number % len(people)])
        candidates = (f"{portraits.NOBODY}alike/{seed}/{number}/{i}" for i in count())
        yield next(f for f in candidates if _shared(portraits.identity(f), wanted) >= SHARED), number % 30


def _shared(one: portraits.Identity, other: portraits.Identity) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


def one_person(seed: str) -> Iterator[tuple[str, int]]:
    """Views of a single face of nobody."""
    return ((f"{portraits.NOBODY}alone/{seed}", number % 30) for number in count())


def draw(pictures: Iterator[tuple[str, int]], folder: Path) -> Path:
    """Writes so many portraits into a folder, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (face, view) in zip(range(PICTURES), pictures, strict=False):
        file = folder / f"{number:02d}.png"
        if not file.exists():
            file.write_bytes(portraits.draw_portrait(face, view))
    return folder


def cells(grid: Grid, runs: Path) -> dict[str, dict[str, Cell]]:
    """Stranger as shipped, and with other strangers, by world."""
    found: dict[str, dict[str, Cell]] = {}
    for world in grid.blocks:
        shipped = grid.cell(runs, world, "Stranger", 0)
        drawn_for = {"resemble the people": alike(_forgotten(world), world), "resemble each other": one_person(world)}
        found[world] = {"as shipped": shipped}
        for row, pictures in drawn_for.items():
            name = row.replace(" ", "-")
            folder = draw(pictures, runs.parent / "strangers" / f"{world}-{name}")
            options = {**shipped.options, "model.method.strangers": str(folder)}
            found[world][row] = replace(shipped, row=row, options=options, folder=runs / f"stranger-{world}-{name}")
    return found


def _forgotten(world: str) -> list[str]:
    """Faces of the people of a world who are to be forgotten."""
    data = MLLMU(f"mini/default@{world}", forget=10, stage="unlearn")
    data.prepare_data()
    data.setup()
    return [faces(world)[person.id] for person in data.streams["forget"]]


def record(worlds: dict[str, dict[str, Cell]]) -> dict[str, Any]:
    """Scores by row and world, and p-values of differences from Stranger as shipped."""
    values = {
        row: {world: finished.scores(rows[row], COLUMNS) for world, rows in worlds.items()}
        for row in next(iter(worlds.values()))
    }
    reference, rivals = values["as shipped"], [row for row in values if row != "as shipped"]
    p = {}
    for column in COLUMNS:
        p[column] = holm(
            {row: sign_flip([values[row][w][column] - reference[w][column] for w in worlds]) for row in rivals}
        )
    commits = finished.commits(cell for rows in worlds.values() for cell in rows.values())
    return {"commits": commits, "values": values, "p": p}


def markdown(found: dict[str, Any]) -> str:
    """The page of a record."""
    lines = [
        "# Strangers who resemble the people, or each other",
        "",
        textwrap.fill(
            "Made by `python studies/strangers.py`: Stranger with the settings of configs/mini/stranger.yaml and "
            f"{PICTURES} portraits, means over {len(found['values']['as shipped'])} embedded worlds of 40 people. In "
            "brackets the p-value of the difference of the score itself from Stranger as shipped: exact sign flips, "
            f"Holm over the two rows. Commits: {', '.join(one[:9] for one in found['commits'])}.",
            100,
        ),
        "",
        f"| strangers | {' | '.join(COLUMNS.values())} |",
        f"|{'---|' * (1 + len(COLUMNS))}",
    ]
    for row, worlds in found["values"].items():
        texts = [f"{mean(scores[column] for scores in worlds.values()):.2f}" for column in COLUMNS]
        if row != "as shipped":
            texts = [f"{t} ({found['p'][c][row]:.3f})" for t, c in zip(texts, COLUMNS, strict=True)]
        lines.append(f"| {row} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs what is left and writes the page."""
    arguments = finished.options(str(__doc__), "runs/tables")
    worlds = cells(read_grid(Path("experiments/worlds.yaml"), "mini", 1), arguments.runs)
    if run_jobs([cell for rows in worlds.values() for cell in rows.values()], arguments.jobs):
        return 1
    finished.write("strangers", record(worlds), markdown)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
