"""Whether two methods differ on the same people, or in the same worlds, and by how much: exact, from paired values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import Sums

ALPHA = 0.05
"""A difference counts where its p-value, after Holm's correction, is at most this."""

EXACT = 32
"""Up to so many people that differ every assignment of signs is counted; above, :data:`FLIPS` are drawn."""

FLIPS = 99_999
BLOCK = 2048
"""Assignments of signs that are looked at together."""


def swap_test(ours: Sums, theirs: Sums, gold: Sums | None = None, exact: int = EXACT) -> float | None:
    """Two-sided p-value of a difference between two methods, on the people both were asked about.

    Each person is one pair: the mean of that person's own answers (of all seeds) under either method, so people count
    alike, however many questions they were asked. If the methods do not differ, a person's two values could as well be
    the other way round; the p-value is the share of all 2^n ways to swap them whose difference is at least as large
    (Fisher 1935, The Design of Experiments, section 21). With a gold model the difference is that of the two methods'
    distances, |mean - gold's mean|, else that of their means. All 2^n ways are counted without being listed: the sums
    of either half of the people are sorted and matched (Horowitz and Sahni 1974).
    Over ``exact`` people :data:`FLIPS` ways are drawn with a fixed seed, and p is (hits + 1) / (draws + 1).

    Args:
        ours: what each person adds to the mean of one method.
        theirs: the same of the other.
        gold: the same of the gold model, which is taken as it is; people it was not asked about are left out.
        exact: how many pairs are counted in full.

    Returns:
        Between 2^(1 - n) and 1; ``None`` if nobody is shared, or a value is not finite. As computed in floating
        point, ties count as such.
    """
    shared = sorted(set(ours.people) & set(theirs.people) & set(gold.people if gold else ours.people))
    if not shared:
        return None
    one, two = ours.each(shared), theirs.each(shared)
    differences = one - two
    if not np.isfinite(differences.sum()) or (gold is not None and not np.isfinite(gold.each(shared)).all()):
        return None
    least = abs(differences.sum())
    if gold is not None:
        # With s half the sum of differences and u that of both means' sum less gold's, the distances differ by
        # | |u + s| - |u - s| | = 2 min(|u|, |s|). Swapping changes s alone, so it is enough that |s| reaches this.
        least = min(least, abs((one + two - 2 * gold.each(shared)).sum()))
    least -= 1e-9 * (np.abs(one).sum() + np.abs(two).sum())  # ties are ties in spite of rounding
    return _share(differences, least, exact)


def sign_flip(differences: Sequence[float] | NDArray[np.float64], exact: int = EXACT) -> float:
    """Two-sided p-value of paired differences, if either sign of each is as likely where nothing differs.

    The share of all 2^n ways to sign them whose sum is at least as far from 0, as in :func:`swap_test`.

    Args:
        differences: ``[n]``, finite; a pair each.
        exact: how many that are not 0 are counted in full.

    Returns:
        Between 2^(1 - n) and 1; 1 if there are none. As computed in floating point, ties count as such.
    """
    values = np.asarray(differences, dtype=np.float64)
    return _share(values, abs(values.sum()) - 1e-9 * np.abs(values).sum(), exact)


def equivalence(differences: Sequence[float] | NDArray[np.float64], margin: float, exact: int = EXACT) -> float:
    """P-value of paired differences being smaller than a margin either way: two one-sided exact tests.

    A large p-value of :func:`sign_flip` does not show that two are alike; a small one of this does, up to the margin,
    which is to be named before anything is measured. Each one-sided test shifts the differences by the margin and
    counts, of all 2^n ways to sign them, those whose sum is at least as large (Schuirmann 1987, with sign flips in
    place of t). It takes differences to be symmetric about their true value.

    Args:
        differences: ``[n]``, finite; a pair each.
        margin: in their unit, > 0.
        exact: how many are counted in full.

    Returns:
        The larger of both, between 2^-n and 1; 1 if there are none. As computed in floating point, ties count as such.
    """
    values = np.asarray(differences, dtype=np.float64)
    shifted = (margin + values, margin - values)
    return max(_share(side, side.sum() - 1e-9 * np.abs(side).sum(), exact, sides=1) for side in shifted)


def _share(differences: NDArray[np.float64], least: float, exact: int, sides: int = 2) -> float:
    """Of all ways to sign the differences, how many have a sum of at least this, of either sign if ``sides`` is 2."""
    differences = differences[differences != 0]
    if not len(differences) or (sides == 2 and least <= 0):
        return 1.0
    if len(differences) > exact:
        drawn, hits = np.random.default_rng(0), 0
        for start in range(0, FLIPS, BLOCK):
            signs = drawn.choice([-1.0, 1.0], (min(BLOCK, FLIPS - start), len(differences)))
            sums = signs @ differences
            hits += int(((np.abs(sums) if sides == 2 else sums) >= least).sum())
        return (hits + 1) / (FLIPS + 1)
    half = len(differences) // 2
    left, right = np.sort(_signed_sums(differences[:half])), _signed_sums(differences[half:])
    above = (len(left) - np.searchsorted(left, least - right)).sum()
    return float(sides * above / (len(left) * len(right)))


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[2^n]`` sums of values ``[n]`` with every assignment of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


@dataclass(frozen=True)
class Shift:
    """By how much paired values differ.

    Attributes:
        estimate: in the unit of the values.
        low: lower end of its interval; ``None`` where there are too few pairs for the level.
        high: upper end.
        coverage: how often, at least, such an interval holds the true shift; 0 where there is none.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    coverage: float = 0.0


def hodges_lehmann(differences: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Shift:
    """By how much paired values differ, with an exact interval (Hodges and Lehmann 1963).

    The estimate is the median of all Walsh averages (d_i + d_j) / 2, i <= j. The interval has those shifts that
    Wilcoxon's exact signed-rank test does not reject: it ends at the k-th smallest and k-th largest Walsh average, k as
    large as the level allows. Exact where differences are symmetric about the shift; with ties it covers no less.

    Args:
        differences: ``[n]``, n >= 1, finite; a pair each.
        level: that the interval is to cover at least, below 1.

    Returns:
        The shift; without interval where even the whole range of the differences covers less than the level: under 6
        pairs at .95.

    Raises:
        ValueError: if there is no pair.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        raise ValueError("hodges_lehmann: found no differences, expected one or more")
    rows, columns = np.triu_indices(len(values))
    walsh = np.sort((values[rows] + values[columns]) / 2)
    ways = _rank_sums(len(values))
    tail, below = (1 - level) / 2 * 2 ** len(values), 0
    k = 0
    while below + ways[k] <= tail:
        below += ways[k]
        k += 1
    estimate = float(np.median(walsh))
    if k == 0:
        return Shift(estimate)
    return Shift(estimate, float(walsh[k - 1]), float(walsh[-k]), 1 - 2 * below / 2 ** len(values))


def _rank_sums(pairs: int) -> list[int]:
    """How many of the 2^n subsets of the ranks 1 to n have each sum, from 0 on: Wilcoxon's signed-rank distribution."""
    ways = [1]
    for rank in range(1, pairs + 1):
        ways = [
            (ways[total] if total < len(ways) else 0) + (ways[total - rank] if total >= rank else 0)
            for total in range(len(ways) + rank)
        ]
    return ways


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number (Holm 1979): the chance of any false one among them stays at most alpha."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for i, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - i) * p_values[name]))
        corrected[name] = largest
    return corrected


def fewest(rivals: int) -> int:
    """How many pairs (people, worlds) at least can tell any of so many rivals apart: by their smallest p-value."""
    pairs = 1
    while 2.0 ** (1 - pairs) * rivals > ALPHA:
        pairs += 1
    return pairs
