"""Numbers of a grid's runs: mean over seeds, 95 % interval over people, ranks, tests. Reads run folders only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from viker_lightning.reporting import Estimate, arrow, interval
from viker_lightning.reporting.contenders import Contender, Place, marks_note, pooled, ranks
from viker_lightning.reporting.intervals import FEWEST, POOR, coverage
from viker_lightning.reporting.scores import better, scores_of
from viker_lightning.runs import Run, read_run

from .cells import Cell, State
from .grid import Grid
from .published import Source, published


@dataclass
class Table:
    """What a grid has found so far.

    Attributes:
        grid: the grid.
        out: folder of its runs.
    """

    grid: Grid
    out: Path

    @cached_property
    def contenders(self) -> dict[str, list[Contender]]:
        """By block, the rows of which at least one run is finished."""
        return {block: [c for name in self.grid.rows if (c := self._contender(block, name))] for block in self.blocks}

    @property
    def blocks(self) -> list[str]:
        """In the order of the grid."""
        return list(self.grid.blocks)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every run of the grid."""
        return self.grid.cells(self.out)

    def runs(self, block: str, name: str) -> tuple[str, list[Run]]:
        """The finished runs a row's numbers are read from, and the moment: ``before`` or ``after``."""
        when, cells = self.grid.runs(self.out, block, name)
        return when, [self._read(cell.folder) for cell in cells if cell.state() == State.FINISHED]

    def _read(self, folder: Path) -> Run:
        if folder not in self._folders:
            self._folders[folder] = read_run(folder)
        return self._folders[folder]

    @cached_property
    def _folders(self) -> dict[Path, Run]:
        return {}

    def _contender(self, block: str, name: str) -> Contender | None:
        when, runs = self.runs(block, name)
        scores = pooled([scores_of(run, when) for run in runs])
        if not scores:
            return None
        again = "floor" if self.grid.rows[name].again else "method"
        kind = "gold" if name == self.grid.gold else "vanilla" if when == "before" else again
        wanted = len(self.grid.runs(self.out, block, name)[1])
        partial = f"{len(runs)} of {wanted} seeds" if len(runs) < wanted else ""
        return Contender(name, kind, scores, runs if when == "after" else [], partial)  # type: ignore[arg-type]

    def label(self, block: str, name: str) -> str:
        """Name of a row, and how many of its seeds were run if some were not."""
        found = self._contenders(block).get(name)
        return f"{name} ({found.partial})" if found and found.partial else name

    def people(self, block: str) -> dict[str, int]:
        """How many people the numbers of a block are about, by split: the most of any row."""
        found: dict[str, int] = {}
        for contender in self.contenders[block]:
            for split in self.grid.columns:
                asked = {person for sums in contender.scores.get(split, {}).values() for person in sums.people}
                found[split] = max(found.get(split, 0), len(asked))
        return {split: count for split, count in found.items() if count}

    def asked(self, block: str) -> str:
        """The same in words, and what it means for the intervals; empty if nothing was run."""
        people = self.people(block)
        counts = ", ".join(f"{split} {count}" for split, count in people.items())
        return f"People, at most: {counts}. {coverage(people)}".strip() if people else ""

    @property
    def marks(self) -> str:
        """What the marks of methods mean."""
        rows = [(name, row) for name, row in self.grid.rows.items() if not row.before and not row.again]
        models = [Contender(name, "gold" if name == self.grid.gold else "method", {}) for name, _ in rows]
        return marks_note(models, self.grid.reference)

    def made_with(self) -> dict[str, list[str]]:
        """Commit, versions, device, images and data of the finished runs; more than one value where they differ."""
        found: dict[str, set[str]] = {}
        for block in self.blocks:
            for name in self.grid.rows:
                for run in self.runs(block, name)[1]:
                    told, data = run.provenance, run.provenance.get("data", {})
                    facts = {"commit": told.get("git_commit"), "device": told.get("device")}
                    facts |= {"threads": told.get("threads"), "irrelevant images": images_of(told)}
                    facts |= {"vanilla model": told.get("base_fingerprint") if told.get("adapter") else None}
                    facts |= {f"data, {block}".rstrip(", "): data.get("fingerprint")} | told.get("versions", {})
                    for fact, value in facts.items():
                        found.setdefault(fact, set()).update([str(value)] if value else [])
        return {fact: sorted(values) for fact, values in found.items() if values}

    def value(self, block: str, name: str, split: str, score: str) -> dict[str, Any] | None:
        """A cell of the table: mean, interval, runs, people and rank; ``None`` if it was not run."""
        found, estimate = self._contenders(block).get(name), self.estimate(block, name, split, score)
        if found is None or estimate is None:
            return None
        seeds = [one.mean for run in found.runs if (one := scores_of(run).get(split, {}).get(score))]
        place = self.place(block, name, split, score)
        gold = (
            self.estimate(block, self.grid.gold, split, score) if better(split, score, found.runs) == "gold" else None
        )
        return {
            "mean": round(estimate.value, 6),
            "low": round(estimate.low, 6) if estimate.known else None,
            "high": round(estimate.high, 6) if estimate.known else None,
            "people": estimate.people,
            "runs": max(1, len(found.runs)),
            "by_seed": [round(value, 6) for value in seeds],
            "rank": place.rank,
            "p": None if place.p is None else round(place.p, 6),
            "to_gold": round(abs(estimate.value - gold.value), 6) if gold else None,
        }

    def estimate(self, block: str, name: str, split: str, score: str) -> Estimate | None:
        """Mean and interval; of a score that is no mean over questions, as truth ratio, the mean over runs alone."""
        found = self._contenders(block).get(name)
        if sums := found.sums(split, score) if found else None:
            return interval(sums)
        when, runs = self.runs(block, name)
        values = [run.results.get(when, {}).get(split, {}).get(score) for run in runs]
        known = [value for value in values if isinstance(value, int | float)]
        return Estimate(mean(known), float("nan"), float("nan"), 0) if known else None

    def _contenders(self, block: str) -> dict[str, Contender]:
        return {contender.name: contender for contender in self.contenders[block]}

    def place(self, block: str, name: str, split: str, score: str) -> Place:
        """How a row does among the methods of its block."""
        return self._ranks(block, split, score).get(name, Place())

    def _ranks(self, block: str, split: str, score: str) -> dict[str, Place]:
        key = block, split, score
        if key not in self._known:
            self._known[key] = ranks(self.contenders[block], split, score, self.grid.reference)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, str, str], dict[str, Place]]:
        return {}

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Split, score and heading with arrow of every column."""
        runs = [run for found in self.contenders.values() for contender in found for run in contender.runs]
        return [
            (split, score, f"{heading} {arrow(split, score, runs)}")
            for split, scores in self.grid.columns.items()
            for score, heading in scores.items()
        ]

    @property
    def sources(self) -> list[Source]:
        """Published numbers that belong beside this table."""
        return published(self.grid.published) if self.grid.published else []

    def difference(self, source: Source, block: str, name: str, column: str) -> float | None:
        """Ours minus the published number; ``None`` unless scale and protocol are the same and both are known."""
        theirs = source.value(block, name, column)
        known = block in self.blocks and name in self.grid.rows and self.grid.scale != "mini"
        if theirs is None or not known or self._protocols([(block, name)]) != {source.protocol}:
            return None
        split, _, score = column.partition("/")
        ours = self.estimate(block, name, split, score)
        return ours.value - theirs if ours else None

    def comparable(self, source: Source) -> str:
        """Protocol of published numbers and of ours, and why no difference is given, if so."""
        if self.grid.scale == "mini":
            why = "Another model and other data than above: to be compared by order, not by value."
            return f"Protocol: {source.protocol}. {why}"
        rows = [(b, name) for b in source.blocks if b in self.blocks for name in source.blocks[b]]
        ours = self._protocols([place for place in rows if place[1] in self.grid.rows])
        why = " No difference is given: numbers of two protocols do not compare." if ours - {source.protocol} else ""
        return f"Protocol: {source.protocol}; ours: {', '.join(sorted(ours)) or 'not run yet'}.{why}"

    def _protocols(self, places: list[tuple[str, str]]) -> set[str]:
        return {str(run.results.get("protocol")) for place in places for run in self.runs(*place)[1]}

    def record(self) -> dict[str, Any]:
        """Everything, for ``results/<table>.json``: numbers, commands, what failed, and what else was tried."""
        values = {
            block: {
                name: {f"{split}/{score}": self.value(block, name, split, score) for split, score, _ in self.columns}
                for name in self.grid.rows
            }
            for block in self.blocks
        }
        cells = [
            {"block": c.block, "row": c.row, "seed": c.seed, "state": c.state().value, "command": c.command}
            | {key: c.note().get(key) for key in ("seconds", "peak_memory_bytes")}
            | ({"error": c.complaint()} if c.state() == State.FAILED else {})
            for c in self.cells
        ]
        tuning = json.loads(Path(self.grid.tuning).read_text(encoding="utf-8")) if self.grid.tuning else None
        return {
            "table": self.grid.name,
            "title": self.grid.title,
            "scale": self.grid.scale,
            "note": self.grid.note,
            "seeds": self.grid.seeds,
            "interval": "95 %, percentile bootstrap that draws whole people with the answers of all seeds; none of "
            f"fewer than {FEWEST} people, too narrow of fewer than {POOR}",
            "reference": self.grid.reference,
            "marks": self.marks,
            "columns": [{"split": s, "score": score, "heading": heading} for s, score, heading in self.columns],
            "values": values,
            "published": [source.record() for source in self.sources],
            "people": {block: self.people(block) for block in self.blocks},
            "runs": cells,
            "made_with": self.made_with(),
            "tuning": tuning,
        }


def images_of(provenance: dict[str, Any]) -> str | None:
    """Kind, number and seed of the irrelevant images of a run; ``None`` if it has none."""
    drawn = provenance.get("irrelevant_images")
    return f"{drawn['kind']} (k = {drawn['k']}, seed {drawn['seed']})" if drawn else None
