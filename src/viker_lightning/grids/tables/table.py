"""A table of runs, from plain values and run folders: mean over seeds, 95 % interval over people, ranks, tests."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from viker_lightning.grids.tuning.tuning_record import settings_tried
from viker_lightning.metrics.statistics.intervals import coverage
from viker_lightning.reporting import Estimate, arrow, interval
from viker_lightning.reporting.contenders import Contender, Kind, Place, marks_note, pooled, ranks
from viker_lightning.reporting.run_scores import better, scores_of
from viker_lightning.reporting.unmeasured import unmeasured
from viker_lightning.storage.runs import Run, read_run

from ..cells import Cell
from ..grid import Grid
from .published_numbers import PAPER_NUMBERS, Source, paper_numbers

MINI = "mini"
"""The scale whose numbers compare with nobody's."""


@dataclass
class Table:
    """What the runs of a grid, which are in the folder ``out``, have found so far."""

    grid: Grid
    out: Path
    _places: dict[tuple[str, str, str], dict[str, Place]] = field(default_factory=dict, init=False, repr=False)

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.grid.name}-{self.grid.scale}"

    @property
    def blocks(self) -> list[str]:
        """E.g. forget ratios; each has every row."""
        return [*self.grid.blocks]

    @property
    def rows(self) -> dict[str, Kind]:
        """What each row is, by name."""
        return {name: self.grid.kind(name) for name in self.grid.rows}

    @cached_property
    def runs(self) -> list[tuple[Cell, dict[str, Any]]]:
        """Every run as it is now, however far: its cell, and what the record says of it."""
        return [(cell, cell.described()) for cell in self.grid.cells(self.out)]

    @cached_property
    def sources(self) -> list[Source]:
        """Published numbers that belong beside it."""
        return paper_numbers(self.grid.published, PAPER_NUMBERS) if self.grid.published else []

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Split, score and heading with arrow of every column."""
        return [
            (split, score, f"{heading} {arrow(split, score, self.contender_runs)}")
            for split, scores in self.grid.columns.items()
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
    def contender_runs(self) -> list[Run]:
        """The finished runs of all contenders."""
        everybody = chain.from_iterable(rows.values() for rows in self.contenders.values())
        return [run for contender in everybody for run in contender.runs]

    @cached_property
    def _finished(self) -> dict[Path, Run]:
        return {cell.folder: read_run(cell.folder) for cell, run in self.runs if run["state"] == "finished"}

    @cached_property
    def settings_tried(self) -> list[dict[str, Any]] | None:
        """Every setting in the record of tuning; ``None`` where there is none."""
        return settings_tried(Path(self.grid.tuning)) if self.grid.tuning else None

    def runs_of(self, block: str, name: str) -> list[tuple[Cell, dict[str, Any]]]:
        """The runs whose numbers a row shows, finished or not."""
        before = self.grid.rows[name].before
        return [
            (cell, run)
            for cell, run in self.runs
            if cell.block == block and (cell.row == name or (cell.row == before and cell.seed == 0))
        ]

    def read_runs(self, block: str, name: str) -> tuple[str, list[Run]]:
        """The moment a row's numbers are of, ``before`` or ``after``, and the finished runs they are read from."""
        when = "before" if self.grid.rows[name].before else "after"
        mine = [self._finished.get(cell.folder) for cell, _ in self.runs_of(block, name)]
        return when, [run for run in mine if run]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Blocks whose runs are averaged where nothing is compared, by name: each alone, or all worlds."""
        return {"": self.blocks} if self.grid.worlds else {block: [block] for block in self.blocks}

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
        return Contender(name, self.rows[name], scores, runs if when == "after" else [], partial)

    def label(self, block: str, name: str) -> str:
        """Name of a row, and how many of its seeds were run if some were not."""
        contender = self.contenders[block].get(name)
        return f"{name} ({contender.partial})" if contender and contender.partial else name

    def people(self, block: str) -> dict[str, int]:
        """How many people the numbers of a block are about, by split: the most of any row."""
        most: dict[str, int] = {}
        for contender in self.contenders[block].values():
            for split in self.grid.columns:
                people = {person for sums in contender.scores.get(split, {}).values() for person in sums.people}
                most[split] = max(most.get(split, 0), len(people))
        return {split: count for split, count in most.items() if count}

    def people_note(self, block: str) -> str:
        """How many people a block is about, in words, and what it means for the intervals; empty if nothing was run."""
        people = self.people(block)
        counts = ", ".join(f"{split} {count}" for split, count in people.items())
        return f"People, at most: {counts}. {coverage(people)}".strip() if people else ""

    @property
    def marks(self) -> str:
        """What the marks of methods mean."""
        models = [Contender(name, kind, {}) for name, kind in self.rows.items() if kind in ("gold", "method")]
        return marks_note(models, self.grid.reference)

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
        gold = self.estimate(block, self.grid.gold, split, score) if to_gold else None
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
        """What the figure shows of a block by name of a score: settings with estimates, and what gold reaches."""
        series: dict[str, list[tuple[float, Estimate]]] = {}
        golds: dict[str, float] = {}
        for column in self.grid.figure["y"]:
            split, _, score = column.partition("/")
            name, settings = f"{split}: {score.replace('_', ' ')}", self.grid.figure["x"].items()
            if points := [(float(x), e) for row, x in settings if (e := self.estimate(block, row, split, score))]:
                series[name] = points
                gold = self.estimate(block, self.grid.gold, split, score)
                golds |= {name: gold.value} if gold else {}
        return series, golds

    def place(self, block: str, name: str, split: str, score: str) -> Place:
        """How a row does among the methods of its block."""
        key = block, split, score
        if key not in self._places:
            self._places[key] = ranks([*self.contenders[block].values()], split, score, self.grid.reference)
        return self._places[key].get(name, Place())

    def difference(self, source: Source, block: str, name: str, column: str) -> float | None:
        """Ours minus the published number; ``None`` unless scale and protocol are the same and both are known."""
        theirs = source.value(block, name, column)
        comparable = block in self.blocks and name in self.rows and self.grid.scale != MINI
        if theirs is None or not comparable or self._protocols([(block, name)]) != {source.protocol}:
            return None
        split, _, score = column.partition("/")
        ours = self.estimate(block, name, split, score)
        return ours.value - theirs if ours else None

    def comparable(self, source: Source) -> str:
        """Protocol of published numbers and of ours, and why no difference is given, if so."""
        if self.grid.scale == MINI:
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
