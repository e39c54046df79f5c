"""How sure a mean over people is: 95 % intervals from a bootstrap that draws whole people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        value: the mean, in the unit of the score.
        low: lower end of the interval; NaN where one person alone was asked, who tells nothing of others.
        high: upper end.
        people: how many people were drawn from.
    """

    value: float
    low: float
    high: float
    people: int

    @property
    def known(self) -> bool:
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
    def of(cls, people: Sequence[str], totals: Sequence[float], counts: Sequence[float]) -> Sums:
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

    def only(self, people: Sequence[str]) -> Sums:
        """The sums of some of the people."""
        index = [self.people.index(person) for person in people]
        return Sums(tuple(people), self.totals[index], self.counts[index])


def interval(sums: Sums, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Estimate:
    """Mean over people's rows with its percentile interval.

    Questions about one person stand and fall together, so an interval over questions is far too narrow. Whole people
    are drawn with replacement instead, each with all rows (Field and Welsh 2007, cluster bootstrap).

    Args:
        sums: at least one person.
        draws: bootstrap samples.
        seed: of the draws.
        level: share of draws inside, 0 to 1.

    Returns:
        The mean of what was measured, and the interval; with few people (under about ten) it is rather too narrow.
    """
    weights = _weights(len(sums.people), draws, seed)
    means = (weights @ sums.totals) / (weights @ sums.counts)
    return _estimate(sums.mean, means, len(sums.people), level)


def difference(after: Sums, before: Sums, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Estimate | None:
    """Mean of ``after`` minus mean of ``before`` on the people both were asked about, drawn in pairs.

    Returns:
        The difference and its interval; ``None`` if they share nobody.
    """
    shared = sorted(set(after.people) & set(before.people))
    if not shared:
        return None
    one, two = after.only(shared), before.only(shared)
    weights = _weights(len(shared), draws, seed)
    gaps = (weights @ one.totals) / (weights @ one.counts) - (weights @ two.totals) / (weights @ two.counts)
    return _estimate(one.mean - two.mean, gaps, len(shared), level)


def _weights(people: int, draws: int, seed: int) -> NDArray[np.float64]:
    """``[draws, people]``: how often each person is drawn."""
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=draws)
    return drawn.astype(np.float64)


def _estimate(value: float, means: NDArray[np.float64], people: int, level: float) -> Estimate:
    if people < 2:
        return Estimate(value, float("nan"), float("nan"), people)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), people)
