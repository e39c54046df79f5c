"""How sure a mean over people is: 95 % intervals from a bootstrap that draws whole people. No test: see paired.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95

FEWEST = 20
"""Fewer people have no interval, for it would be too narrow: of 95 % intervals of four people .71 to .85 held the true
mean, of six .78 to .89, of ten .86 to .92, of twelve .87 to .92."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        value: the mean, in the unit of the score.
        low: lower end of the interval; NaN where fewer than :data:`FEWEST` people were asked.
        high: upper end.
        people: how many people were drawn from.
    """

    value: float
    low: float
    high: float
    people: int

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class Sums:
    """What each person adds to a mean, people in alphabetical order so that the order of rows changes nothing.

    Attributes:
        people: distinct IDs.
        totals: ``[P]`` sum of a person's scores.
        counts: ``[P]`` number of a person's scores, > 0.
    """

    people: tuple[str, ...]
    totals: NDArray[np.float64]
    counts: NDArray[np.float64]

    @classmethod
    def by_person(cls, people: Sequence[str], totals: Sequence[float], counts: Sequence[float]) -> "Sums":
        """Adds up rows ``[N]`` person by person; rows that count nothing are left out."""
        kept = [i for i, count in enumerate(counts) if count > 0]
        names, index = np.unique(np.array([people[i] for i in kept], dtype=object), return_inverse=True)
        total = np.bincount(index, np.array([totals[i] for i in kept], dtype=np.float64), len(names))
        count = np.bincount(index, np.array([counts[i] for i in kept], dtype=np.float64), len(names))
        return cls(tuple(names.tolist()), total.astype(np.float64), count.astype(np.float64))

    @property
    def mean(self) -> float:
        """Mean over all rows: people with more rows weigh more, as in ``results.json``."""
        return float(self.totals.sum() / self.counts.sum())

    def each(self, people: Sequence[str]) -> NDArray[np.float64]:
        """``[P]`` means of some of the people, each over their own rows."""
        some = self.of_people(people)
        return some.totals / some.counts

    def of_people(self, people: Sequence[str]) -> "Sums":
        """The sums of some of the people."""
        index = [self.people.index(person) for person in people]
        return Sums(tuple(people), self.totals[index], self.counts[index])


def interval(sums: Sums, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean over people's rows with its percentile interval.

    Questions about one person stand and fall together, so an interval over questions is far too narrow. Whole people
    are drawn with replacement instead, each with all rows (Field and Welsh 2007, cluster bootstrap).

    Args:
        sums: at least one person.
        draws: bootstrap samples.
        seed: of the draws.

    Returns:
        The mean of what was measured, and the interval; none of fewer than :data:`FEWEST` people.
    """
    weights = _weights(len(sums.people), draws, seed)
    means = (weights @ sums.totals) / (weights @ sums.counts)
    return _estimate(sums.mean, means, len(sums.people))


def difference(after: Sums, before: Sums, draws: int = DRAWS, seed: int = 0) -> Estimate | None:
    """Mean and interval of ``after`` less ``before``, in pairs, on people both were asked about; ``None`` without."""
    shared = sorted(set(after.people) & set(before.people))
    if not shared:
        return None
    one, two = after.of_people(shared), before.of_people(shared)
    weights = _weights(len(shared), draws, seed)
    gaps = (weights @ one.totals) / (weights @ one.counts) - (weights @ two.totals) / (weights @ two.counts)
    return _estimate(one.mean - two.mean, gaps, len(shared))


def coverage(people: Mapping[str, int]) -> str:
    """What is to be said of intervals over so many people, by split; empty if nothing is."""
    none = [split for split, count in people.items() if count < FEWEST]
    return f"Intervals: none for {', '.join(none)} (under {FEWEST} people)." if none else ""


def _weights(people: int, draws: int, seed: int) -> NDArray[np.float64]:
    """``[draws, people]``: how often each person is drawn."""
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=draws)
    return drawn.astype(np.float64)


def _estimate(value: float, means: NDArray[np.float64], people: int) -> Estimate:
    if people < FEWEST:
        return Estimate(value, float("nan"), float("nan"), people)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), people)
