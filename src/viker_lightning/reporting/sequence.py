"""Requests that came one after another: what is known of the people of each, from request to request."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from viker_lightning.metrics import KNOWLEDGE
from viker_lightning.metrics.statistics.intervals import Sums
from viker_lightning.storage.runs import names
from viker_lightning.storage.runs.read import Run, read_run

from .plots import lines_plot
from .run_scores import Scored, numbers_of, scores_of

Line = list[tuple[int, float]]
"""Values by number of requests."""

TOGETHER = "all so far"
"""Everybody forgotten so far."""


def requests_of_run(run: Run) -> list[list[str]]:
    """Who was forgotten by a run and by those it goes on from, request by request; empty if it does not say."""
    return run.provenance.get("data", {}).get("requests", [])


def runs_so_far(run: Run) -> list[Run]:
    """A run and those it goes on from, oldest first, as far as their folders can be read."""
    found = [run]
    while (folder := _before(found[0])) and folder.resolve() not in {one.folder.resolve() for one in found}:
        found.insert(0, read_run(folder))
    return found


def _before(run: Run) -> Path | None:
    given = run.option("data.init_args.forgotten_by")
    return Path(given) if given and names.is_finished(given) else None


def mean_of(sums: Sums | None, people: Sequence[str] | None = None) -> float | None:
    """Mean over the rows of some of the people; ``None`` if nobody of them was asked."""
    if sums is None:
        return None
    known = sums.people if people is None else [person for person in sums.people if person in people]
    return sums.of_people(known).mean if known else None


def by_requests(
    scores: Mapping[int, Scored], requests: Sequence[Sequence[str]], split: str, score: str
) -> dict[str, Line]:
    """What is known of the people of each request, from the request on, and of all so far, from scores by their number.

    Returns:
        Values by number of requests, by name: ``request 1`` and so on, and :data:`TOGETHER`.
    """
    lines: dict[str, Line] = {}
    for number, people in enumerate(requests, start=1):
        later = {n: mean_of(one.get(split, {}).get(score), people) for n, one in scores.items() if n >= number}
        lines[f"request {number}"] = [(n, value) for n, value in later.items() if value is not None]
    every = {n: mean_of(one.get(split, {}).get(score)) for n, one in scores.items() if n}
    lines[TOGETHER] = [(n, value) for n, value in every.items() if value is not None]
    return {name: line for name, line in lines.items() if line}


def sequence(run: Run) -> dict[str, Any] | None:
    """What the report of a run shows of the requests so far; ``None`` if there was only one.

    Returns:
        ``plot``; ``label``, what is shown; ``lines``, the same as numbers by name; ``numbers``, of requests, from the
        first that is shown on.
    """
    requests, runs = requests_of_run(run), runs_so_far(run)
    if len(requests) < 2:
        return None
    scores = {len(requests_of_run(one)): scores_of(one) for one in runs}
    place = _measured(scores.values(), ("test", "forget"))
    if place is None:
        return None
    split, score = place
    lines = by_requests(scores, requests, split, score)
    for one in runs:  # what was known of its people before a run
        number = len(requests_of_run(one)) or 1
        before = mean_of(scores_of(one, "before").get(split, {}).get(score), requests[number - 1])
        if before is not None and f"request {number}" in lines:
            lines[f"request {number}"].insert(0, (number - 1, before))
    for kept in ("retain", "real"):
        values = {n: mean_of(one.get(kept, {}).get(score)) for n, one in scores.items()}
        lines |= {kept: line} if (line := [(n, value) for n, value in values.items() if value is not None]) else {}
    label = f"{split}: {numbers_of([run])[score].title}"
    plot = lines_plot(lines, f"From request to request: {label}", axis="requests carried out")
    numbers = sorted({n for line in lines.values() for n, _ in line})
    return {
        "plot": plot,
        "label": label,
        "lines": {name: dict(line) for name, line in lines.items()},
        "numbers": numbers,
    }


def _measured(scores: Any, splits: Sequence[str]) -> tuple[str, str] | None:
    """The first split, and the score that tells what a model knows, that all runs have."""
    pairs = [(split, score) for split in splits for score in KNOWLEDGE]
    return next(((s, score) for s, score in pairs if all(score in one.get(s, {}) for one in scores)), None)
