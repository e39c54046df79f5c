"""Is the unlearned model like the gold model, trained without the data to forget? (TOFU, CLEAR)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .mean import TwoSamples, as_scores


def forget_quality(model: Tensor | Iterable[float], gold: Tensor | Iterable[float]) -> dict[str, float]:
    """Compare the truth ratios of two models on the forget set: the two-sample Kolmogorov-Smirnov test (TOFU).

    Whether TR or 1 / TR is compared makes no difference. The p-value says how surprising so large a distance would be
    if both models drew from one distribution: high is wanted, 1 being "not told apart". It falls with the number of
    samples at equal distance, so compare only runs on the same forget set and report the statistic beside it.
    `scipy.stats.ks_2samp` as in TOFU, CLEAR and open-unlearning (`privacy.py`).

    Args:
        model: Truth ratios of the model under test; infinite ones are ranked.
        gold: Truth ratios of the gold model on the same questions.

    Returns:
        `statistic` in [0, 1], low is wanted; `p_value` in [0, 1]; `log10_p`, at most 0, high is wanted, finite even
        where the p-value underflows (leading term of the Kolmogorov tail).

    Raises:
        ValueError: If a list is empty or holds NaN.
    """
    from scipy.stats import ks_2samp  # takes a second to import

    first, second = as_scores(model).flatten(), as_scores(gold).flatten()
    if not len(first) or not len(second):
        raise ValueError(f"the test needs a sample of each model, found {len(first)} and {len(second)} values")
    with warnings.catch_warnings():  # where the exact p-value overflows, the asymptotic one is taken, with a warning
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        found = ks_2samp(first.cpu().numpy(), second.cpu().numpy())
    statistic, p = float(found.statistic), float(found.pvalue)
    effective = len(first) * len(second) / (len(first) + len(second))
    log10_p = math.log10(p) if p > 0 else (math.log(2) - 2 * effective * statistic**2) / math.log(10)
    return {"statistic": statistic, "p_value": p, "log10_p": log10_p}


def js_similarity(model: Tensor | Iterable[float], gold: Tensor | Iterable[float], base: float = math.e) -> float:
    """Return 1 - JS, the Jensen-Shannon distance of two vectors of truth ratios, as CLEAR's table has it.

    `scipy.spatial.distance.jensenshannon`: each vector is divided by its sum and read as a distribution over the
    questions; JS = sqrt((KL(p || m) + KL(q || m)) / 2), m = (p + q) / 2. High is wanted: 1 means proportional
    vectors. Published so (`mm/build_vllm_table.py` L103) although it is odd: a model whose ratios are all ten times
    the gold ones scores 1. In [1 - sqrt(ln 2 / ln base), 1], so with CLEAR's natural logarithm never below 0.167;
    with base 2 in [0, 1].

    Args:
        model: Truth ratios of the model under test, finite.
        gold: Truth ratios of the gold model, in the same order of questions.
        base: Of the logarithm; e as published.

    Returns:
        The similarity.

    Raises:
        ValueError: If the lengths differ, a list is empty, a value is negative, infinite or NaN, or all values of one
            list are 0.
    """
    from scipy.spatial.distance import jensenshannon

    first, second = as_scores(model).flatten(), as_scores(gold).flatten()
    if len(first) != len(second) or not len(first):
        raise ValueError(f"1 - JS needs one value per question from each model, found {len(first)} and {len(second)}")
    for name, values in (("model", first), ("gold", second)):
        if values.min() < 0 or not values.isfinite().all() or not values.sum():
            raise ValueError(f"{name}: truth ratios must be finite, not negative and not all 0 to be a distribution")
    # Rounding can leave equal distributions the root of a tiny negative number.
    with np.errstate(invalid="ignore"):
        distance = float(jensenshannon(first.cpu().numpy(), second.cpu().numpy(), base=base))
    return 1 - (0.0 if math.isnan(distance) else distance)


class ForgetQuality(TwoSamples):
    """`forget_quality` over all samples on all processes."""

    higher_is_better = True

    def update(self, model: Tensor | Iterable[float] = (), gold: Tensor | Iterable[float] = ()) -> None:
        """Add truth ratios on the forget set: of the model under test, and of the gold model."""
        self._add_pair(model, gold)

    def compute(self) -> dict[str, Tensor]:
        """Return `statistic`, `p_value` and `log10_p` as float64 scalars; NaN while one of the two lists is empty."""
        model, gold = self.pair()
        empty = not len(model) or not len(gold)
        found = dict.fromkeys(("statistic", "p_value", "log10_p"), math.nan) if empty else forget_quality(model, gold)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


class JSSimilarity(TwoSamples):
    """`js_similarity` over all samples on all processes; each update pairs the models question by question."""

    higher_is_better = True

    def __init__(self, base: float = math.e) -> None:
        """Choose the base of the logarithm, see `js_similarity`."""
        super().__init__()
        self.base = base

    def update(self, model: Tensor | Iterable[float], gold: Tensor | Iterable[float]) -> None:
        """Add truth ratios of both models on the same questions, in the same order.

        Raises:
            ValueError: If the lengths differ or a ratio is NaN.
        """
        first, second = as_scores(model).flatten(), as_scores(gold).flatten()
        if len(first) != len(second):
            raise ValueError(f"1 - JS needs one value per question from each model, found {len(first)}, {len(second)}")
        self._add_pair(first, second)

    def compute(self) -> Tensor:
        """Return the similarity as a float64 scalar; NaN when there were no samples."""
        model, gold = self.pair()
        return torch.tensor(js_similarity(model, gold, self.base) if len(model) else math.nan, dtype=torch.float64)
