"""A table of runs, from plain values and run folders: mean over seeds, 95 % interval over people, ranks, tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from viker_lightning.grids.tuning.tuned import settings_tried
from viker_lightning.metrics.statistics.intervals import coverage
from viker_lightning.reporting import Estimate, arrow, interval
from viker_lightning.reporting.contenders import Contender, Place, marks_note, pooled, ranks
from viker_lightning.reporting.run_scores import better, scores_of
from viker_lightning.reporting.unmeasured import unmeasured
from viker_lightning.storage.runs import Run, read_run

from .paper_numbers import Source

MINI = "mini"
"""The scale whose numbers compare with nobody's."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        kind: as that of a :class:`~viker_lightning.reporting.contenders.Contender`.
        before: the row whose run of seed 0 says, before training, what this row shows (vanilla); it has no runs.
    """

    kind: Literal["vanilla", "gold", "floor", "method"]
    before: str = ""


@dataclass(frozen=True)
class TableRun:
    """One of a table's runs, however far it is.

    Attributes:
        block: e.g. the forget ratio.
        row: e.g. the method.
        seed: of the run.
        title: for people.
        state: ``missing``, ``started``, ``finished`` or ``failed``.
        command: what anybody can type to make it again.
        folder: of the run.
        seconds: what it took; ``None`` if nobody knows yet.
        peak_memory_bytes: the same of main memory.
        error: what stopped it, if it failed.
    """

    block: str
    row: str
    seed: int
    title: str
    state: str
    command: str
    folder: Path
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str = ""

    def described(self) -> dict[str, Any]:
        """What the JSON of a table says of it, without the place it lies in."""
        names = ("block", "row", "seed", "state", "command", "seconds", "peak_memory_bytes")
        return {name: getattr(self, name) for name in names} | ({"error": self.error} if self.state == "failed" else {})


@dataclass
class Table:
    """What the runs of a table have found so far.

    Attributes:
        name: of the table.
        title: for people.
        scale: ``mini``, ``paper`` or ``published``.
        note: what this scale is, in a sentence.
        seeds: how many there are to be.
        headings: of the columns, by split and score.
        blocks: e.g. forget ratios; each has every row.
        rows: by name.
        runs: all of them, finished or not.
        reference: the method whose differences from the other methods are tested.
        sources: published numbers that belong beside it.
        tuning: record of all settings tried, if any.
        worlds: whether its blocks are worlds, over which methods are compared.
        sequence: whether its blocks are requests that come one after another, each of which goes on from the model
            that the one before it has left.
        figure: what its figure shows in place of the trade-off: ``label``, ``x`` (a value by row), ``y``
            (``<split>/<score>`` each) and perhaps ``log``.
    """

    name: str
    title: str
    scale: str
    note: str
    seeds: int
    headings: dict[str, dict[str, str]]
    blocks: list[str]
    rows: dict[str, TableRow]
    runs: list[TableRun]
    reference: str
    sources: list[Source] = field(default_factory=list)
    tuning: str = ""
    worlds: bool = False
    sequence: bool = False
    figure: dict[str, Any] = field(default_factory=dict)
    _places: dict[tuple[str, str, str], dict[str, Place]] = field(default_factory=dict, init=False, repr=False)

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.name}-{self.scale}"

    @property
    def gold(self) -> str:
        """The row that is the gold model; empty if there is none."""
        return next((name for name, row in self.rows.items() if row.kind == "gold"), "")

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Split, score and heading with arrow of every column."""
        runs = [run for rows in self.contenders.values() for one in rows.values() for run in one.runs]
        return [
            (split, score, f"{heading} {arrow(split, score, runs)}")
            for split, scores in self.headings.items()
            for score, heading in scores.items()
        ]

    @cached_property
    def contenders(self) -> dict[str, dict[str, Contender]]:
        """By block and name, the rows of which at least one run is finished."""
        return {
            block: {name: found for name in self.rows if (found := self._contender(block, name))}
            for block in self.blocks
        }

    @cached_property
    def _finished(self) -> dict[Path, Run]:
        return {folder: read_run(folder) for folder in {run.folder for run in self.runs if run.state == "finished"}}

    @cached_property
    def settings_tried(self) -> list[dict[str, Any]] | None:
        """Every setting in the record of tuning; ``None`` where there is none."""
        return settings_tried(Path(self.tuning)) if self.tuning else None

    def runs_of(self, block: str, name: str) -> list[TableRun]:
        """The runs whose numbers a row shows, finished or not."""
        before = self.rows[name].before
        return [
            run
            for run in self.runs
            if run.block == block and (run.row == name or (run.row == before and run.seed == 0))
        ]

    def read_runs(self, block: str, name: str) -> tuple[str, list[Run]]:
        """The moment a row's numbers are of, ``before`` or ``after``, and the finished runs they are read from."""
        when = "before" if self.rows[name].before else "after"
        return when, [self._finished[run.folder] for run in self.runs_of(block, name) if run.state == "finished"]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Blocks whose runs are averaged where nothing is compared, by name: each alone, or all worlds."""
        return {"": self.blocks} if self.worlds else {block: [block] for block in self.blocks}

    def finished_runs(self) -> Iterator[tuple[str, Run]]:
        """Block and run of every number of the table, row by row."""
        for block in self.blocks:
            for name in self.rows:
                yield from ((block, run) for run in self.read_runs(block, name)[1])

    def _contender(self, block: str, name: str) -> Contender | None:
        when, runs = self.read_runs(block, name)
        scores = pooled([scores_of(run, when) for run in runs])
        if not scores:
            return None
        wanted = len(self.runs_of(block, name))
        partial = f"{len(runs)} of {wanted} seeds" if len(runs) < wanted else ""
        return Contender(name, self.rows[name].kind, scores, runs if when == "after" else [], partial)

    def label(self, block: str, name: str) -> str:
        """Name of a row, and how many of its seeds were run if some were not."""
        contender = self.contenders[block].get(name)
        return f"{name} ({contender.partial})" if contender and contender.partial else name

    def people(self, block: str) -> dict[str, int]:
        """How many people the numbers of a block are about, by split: the most of any row."""
        most: dict[str, int] = {}
        for contender in self.contenders[block].values():
            for split in self.headings:
                people = {person for sums in contender.scores.get(split, {}).values() for person in sums.people}
                most[split] = max(most.get(split, 0), len(people))
        return {split: count for split, count in most.items() if count}

    def people_note(self, block: str) -> str:
        """The same in words, and what it means for the intervals; empty if nothing was run."""
        people = self.people(block)
        counts = ", ".join(f"{split} {count}" for split, count in people.items())
        return f"People, at most: {counts}. {coverage(people)}".strip() if people else ""

    @property
    def marks(self) -> str:
        """What the marks of methods mean."""
        models = [Contender(name, row.kind, {}) for name, row in self.rows.items() if row.kind in ("gold", "method")]
        return marks_note(models, self.reference)

    def made_with(self) -> dict[str, list[str]]:
        """Commit, versions, device, images and data of the finished runs; more than one value where they differ."""
        seen: dict[str, set[str]] = {}
        for block, run in self.finished_runs():
            for fact, value in _provenance_facts(run.provenance, block).items():
                seen.setdefault(fact, set()).update([str(value)] if value else [])
        return {fact: sorted(values) for fact, values in seen.items() if values}

    def value(self, block: str, name: str, split: str, score: str) -> dict[str, Any] | None:
        """A cell of the table: mean, interval, runs, people and rank; ``None`` if it was not run."""
        contender, estimate = self.contenders[block].get(name), self.estimate(block, name, split, score)
        if contender is None or estimate is None:
            return None
        by_seed = [sums.mean for run in contender.runs if (sums := scores_of(run).get(split, {}).get(score))]
        place = self.place(block, name, split, score)
        to_gold = better(split, score, contender.runs) == "gold"
        gold = self.estimate(block, self.gold, split, score) if to_gold else None
        return {
            "mean": round(estimate.value, 6),
            "low": round(estimate.low, 6) if estimate.has_interval else None,
            "high": round(estimate.high, 6) if estimate.has_interval else None,
            "people": estimate.people,
            "runs": max(1, len(contender.runs)),
            "by_seed": [round(value, 6) for value in by_seed],
            "rank": place.rank,
            "p": None if place.p is None else round(place.p, 6),
            "to_gold": round(abs(estimate.value - gold.value), 6) if gold else None,
        }

    def estimate(self, block: str, name: str, split: str, score: str) -> Estimate | None:
        """Mean and interval; of a score that is no mean over questions, as truth ratio, the mean over runs alone."""
        contender = self.contenders[block].get(name)
        if sums := contender.sums(split, score) if contender else None:
            return interval(sums)
        if name not in self.rows:
            return None
        when, runs = self.read_runs(block, name)
        values = [run.results.get(when, {}).get(split, {}).get(score) for run in runs]
        numbers = [value for value in values if isinstance(value, int | float) and isfinite(value)]
        return Estimate(mean(numbers), float("nan"), float("nan"), 0) if numbers else None

    def unmeasured(self, block: str) -> str:
        """Which cells of a block are empty though the row was run, and why; empty if none is."""
        models = [*self.contenders[block].values()]
        places = [(split, score, f"{split} {heading[:-2]}") for split, score, heading in self.columns]
        known = {(m.name, s, score) for m in models for s, score, _ in places if self.estimate(block, m.name, s, score)}
        return unmeasured(models, places, known)

    def sweep(self, block: str) -> tuple[dict[str, list[tuple[float, Estimate]]], dict[str, float]]:
        """What :attr:`figure` shows of a block by name of a score: settings with estimates, and what gold reaches."""
        series: dict[str, list[tuple[float, Estimate]]] = {}
        golds: dict[str, float] = {}
        for column in self.figure["y"]:
            split, _, score = column.partition("/")
            name, settings = f"{split}: {score.replace('_', ' ')}", self.figure["x"].items()
            if points := [(float(x), e) for row, x in settings if (e := self.estimate(block, row, split, score))]:
                series[name] = points
                gold = self.estimate(block, self.gold, split, score)
                golds |= {name: gold.value} if gold else {}
        return series, golds

    def place(self, block: str, name: str, split: str, score: str) -> Place:
        """How a row does among the methods of its block."""
        key = block, split, score
        if key not in self._places:
            self._places[key] = ranks([*self.contenders[block].values()], split, score, self.reference)
        return self._places[key].get(name, Place())

    def difference(self, source: Source, block: str, name: str, column: str) -> float | None:
        """Ours minus the published number; ``None`` unless scale and protocol are the same and both are known."""
        theirs = source.value(block, name, column)
        comparable = block in self.blocks and name in self.rows and self.scale != MINI
        if theirs is None or not comparable or self._protocols([(block, name)]) != {source.protocol}:
            return None
        split, _, score = column.partition("/")
        ours = self.estimate(block, name, split, score)
        return ours.value - theirs if ours else None

    def comparable(self, source: Source) -> str:
        """Protocol of published numbers and of ours, and why no difference is given, if so."""
        if self.scale == MINI:
            why = "Another model and other data than above: to be compared by order, not by value."
            return f"Protocol: {source.protocol}. {why}"
        places = [(b, name) for b, names in source.blocks.items() if b in self.blocks for name in names]
        ours = self._protocols([place for place in places if place[1] in self.rows])
        why = " No difference is given: numbers of two protocols do not compare." if ours - {source.protocol} else ""
        return f"Protocol: {source.protocol}; ours: {', '.join(sorted(ours)) or 'not run yet'}.{why}"

    def _protocols(self, places: list[tuple[str, str]]) -> set[str]:
        return {str(run.results.get("protocol")) for place in places for run in self.read_runs(*place)[1]}


def _provenance_facts(provenance: dict[str, Any], block: str) -> dict[str, Any]:
    """What a run was made with, by the name it has in the table."""
    drawn = provenance.get("irrelevant_images")
    return {
        "commit": provenance.get("git_commit"),
        "device": provenance.get("device"),
        "threads": provenance.get("threads"),
        "irrelevant images": drawn and f"{drawn['kind']} (k = {drawn['k']}, seed {drawn['seed']})",
        "vanilla model": provenance.get("base_fingerprint") if provenance.get("method") else None,
        f"data, {block}".rstrip(", "): provenance.get("data", {}).get("fingerprint"),
        **provenance.get("versions", {}),
    }
