"""Whether two methods differ on the same people: an exact test by swapping their values person by person."""

from __future__ import annotations

from collections.abc import Mapping

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
    differences = differences[differences != 0]
    if least <= 0 or not len(differences):
        return 1.0
    if len(differences) > exact:
        drawn, hits = np.random.default_rng(0), 0
        for start in range(0, FLIPS, BLOCK):
            signs = drawn.choice([-1.0, 1.0], (min(BLOCK, FLIPS - start), len(differences)))
            hits += int((np.abs(signs @ differences) >= least).sum())
        return (hits + 1) / (FLIPS + 1)
    half = len(differences) // 2
    left, right = np.sort(_signed_sums(differences[:half])), _signed_sums(differences[half:])
    above = (len(left) - np.searchsorted(left, least - right)).sum()
    return float(2 * above / (len(left) * len(right)))


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[2^n]`` sums of values ``[n]`` with every assignment of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number (Holm 1979): the chance of any false one among them stays at most alpha."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for i, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - i) * p_values[name]))
        corrected[name] = largest
    return corrected


def fewest(rivals: int) -> int:
    """How many people at least can tell any of so many rivals from the reference: their smallest p-value allows it."""
    people = 1
    while 2.0 ** (1 - people) * rivals > ALPHA:
        people += 1
    return people
