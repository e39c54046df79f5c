"""The models a report speaks of: vanilla, gold, and each method with all its seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .intervals import Estimate, Sums, difference, interval
from .runs import Run, read_run
from .scores import NEITHER, Scored, arrow

DECIMALS = 3
"""Values that agree to so many places are equally good."""

FEWEST = 6
"""Fewer people tell no two methods apart: a sign test on five gives p = 0.0625 even if all five agree."""


@dataclass
class Contender:
    """A model, or runs that differ in their seed alone.

    Attributes:
        name: what it is called.
        kind: ``vanilla`` and ``gold`` are there to be compared with, and win nothing.
        runs: its runs; empty for the model another run began with.
        scores: what each person adds to each score, all seeds together.
        partial: says which seeds were run where some are missing; such a method takes no place either.
    """

    name: str
    kind: Literal["vanilla", "gold", "method"]
    scores: Scored
    runs: list[Run] = field(default_factory=list)
    partial: str = ""

    def sums(self, split: str, score: str) -> Sums | None:
        """What each person adds to a score, if it was measured."""
        return self.scores.get(split, {}).get(score)

    def estimate(self, split: str, score: str) -> Estimate | None:
        """Mean and interval of a score, if it was measured."""
        sums = self.sums(split, score)
        return interval(sums) if sums else None


def contenders(runs: Sequence[Run]) -> list[Contender]:
    """Vanilla first, then gold, then the methods in the order they are given in.

    Vanilla is what the first run that measured it began with; gold is a run of stage gold among them, or the run folder
    that a run names as its gold model. Runs whose configs differ in nothing but seed, folder and what is evaluated
    are seeds of one contender: their answers are pooled, so that its value is the mean over seeds, and a person is
    drawn with the answers of all seeds.
    """
    methods: dict[str, list[Run]] = {}
    given: dict[str, Run] = {}
    for run in runs:
        stage = run.config.get("data", {}).get("init_args", {}).get("stage")
        if stage in ("vanilla", "gold") and run.method == stage:
            given.setdefault(stage, run)
        else:
            methods.setdefault(_settings(run), []).append(run)
    found = []
    began = next((run for run in runs if run.method != "gold" and run.scores("before")), None)
    if "vanilla" in given:
        found.append(Contender("vanilla", "vanilla", given["vanilla"].scores(), [given["vanilla"]]))
    elif began is not None:
        found.append(Contender("vanilla", "vanilla", began.scores("before")))
    folder = next((run.gold_folder for run in runs if run.gold_folder), None)
    gold = given.get("gold") or (read_run(folder) if folder else None)
    if gold is not None:
        found.append(Contender("gold", "gold", gold.scores(), [gold]))
    names = [group[0].method for group in methods.values()]
    for group in methods.values():
        first = group[0]
        name = first.method if names.count(first.method) == 1 else f"{first.method} ({first.folder.name})"
        found.append(Contender(name, "method", pooled([run.scores() for run in group]), group))
    return found


def pooled(parts: Sequence[Scored]) -> Scored:
    """Adds up what each person adds, over seeds."""
    found: Scored = {}
    for split, score in dict.fromkeys((s, name) for part in parts for s, scores in part.items() for name in scores):
        sums = [part[split][score] for part in parts if score in part.get(split, {})]
        people = [person for one in sums for person in one.people]
        totals = [value for one in sums for value in one.totals.tolist()]
        counts = [value for one in sums for value in one.counts.tolist()]
        found.setdefault(split, {})[score] = Sums.of(people, totals, counts)
    return found


def ranks(found: Sequence[Contender], split: str, score: str) -> dict[str, tuple[str, bool]]:
    """Who is best at a score.

    Returns:
        By name of a method, ``best``, ``second`` or nothing, and whether it is worse than the best without being told
        apart from it: the paired 95 % interval of the difference includes 0, or fewer than :data:`FEWEST` people were
        asked. Empty where fewer than two methods were measured, or neither end of the score is good by itself.
    """
    if score in NEITHER:
        return {}
    low = arrow(split, score) == "↓"
    sums = {c.name: one for c in found if c.kind == "method" and not c.partial and (one := c.sums(split, score))}
    if len(sums) < 2:
        return {}
    values = {name: round(one.mean, DECIMALS) for name, one in sums.items()}
    order = sorted(set(values.values()), reverse=not low)
    best = next(name for name, value in values.items() if value == order[0])
    places = dict(zip(order, ("best", "second"), strict=False))
    placed = {}
    for name, value in values.items():
        gap = difference(sums[name], sums[best])
        apart = gap is not None and gap.people >= FEWEST and not gap.low <= 0 <= gap.high
        placed[name] = places.get(value, ""), value != order[0] and not apart
    return placed


def disagreements(runs: Sequence[Run]) -> list[str]:
    """Reasons why the numbers of runs do not compare: other data, another protocol, another vanilla model."""
    facts: dict[str, set[str]] = {"data": set(), "evaluation protocol": set(), "vanilla model": set()}
    for run in runs:
        data = run.provenance.get("data", {})
        facts["data"].add(json.dumps([data.get("fingerprint"), data.get("forget")]))
        facts["evaluation protocol"].add(str(run.results.get("protocol")))
        if run.provenance.get("adapter"):
            facts["vanilla model"].add(str(run.provenance.get("base_weights")))
    return [f"the runs differ in their {name}" for name, values in facts.items() if len(values) > 1]


def _settings(run: Run) -> str:
    """What makes a run what it is, seeds and folders aside."""
    config: dict[str, Any] = json.loads(json.dumps(run.config, default=str))
    if not config:
        return str(run.folder)
    parts: dict[str, Any] = {key: config.get(key) or {} for key in ("model", "data", "trainer")}
    for section in ("model", "data"):
        parts[section].get("init_args", {}).pop("seed", None)
    for key in ("default_root_dir", "logger", "callbacks", "enable_progress_bar"):
        parts["trainer"].pop(key, None)
    return json.dumps(parts, sort_keys=True)
