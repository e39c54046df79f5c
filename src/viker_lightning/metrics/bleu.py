"""BLEU of a whole data set, as sacreBLEU computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .mean import Exact

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

_ORDER = 4


@cache
def _bleu() -> BLEU:
    from sacrebleu.metrics import BLEU

    return BLEU()


def sacrebleu_signature() -> str:
    """Return what sacreBLEU asks to be reported with a corpus score: settings and version."""
    bleu = _bleu()
    bleu.corpus_score(["x"], [["x"]])  # it counts the references first
    return str(bleu.get_signature())


class CorpusBleu(Exact):
    """sacreBLEU's corpus BLEU over 100, from n-gram counts summed over all samples on all processes.

    n-gram matches are added up over all answers before precisions are taken, so it is not a mean of sentence scores,
    and unlike `bleu_mllmu` it is comparable between papers: 13a tokens, case matters, exponential smoothing
    (`sacrebleu_signature`). In [0, 1]; sacreBLEU and papers print it times 100. High is wanted on data to keep, low on
    data to forget.

    Post, A Call for Clarity in Reporting BLEU Scores (arXiv 1804.08771).
    """

    higher_is_better = True
    statistics: Tensor

    def __init__(self) -> None:
        """Start with no samples."""
        super().__init__()
        # Answers, their length, length of the references, matches of each order, n-grams of each order.
        self.add_state("statistics", torch.zeros(3 + 2 * _ORDER, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: str | Sequence[str], reference: str | Sequence[str]) -> None:
        """Add generated answers and their true answers."""
        predictions = [prediction] if isinstance(prediction, str) else prediction
        references = [reference] if isinstance(reference, str) else reference
        rows = [_counts(p, r) for p, r in zip(predictions, references, strict=True)]
        if rows:
            self.statistics += torch.tensor(rows, device=self.statistics.device).sum(0)

    def compute(self) -> Tensor:
        """Return the score as a float64 scalar; NaN when there were no samples."""
        n, length, reference_length, *grams = self.statistics.tolist()
        score = math.nan
        if n:
            matches, totals = grams[:_ORDER], grams[_ORDER:]
            score = _bleu().compute_bleu(matches, totals, length, reference_length, "exp").score / 100
        return torch.tensor(score, dtype=torch.float64)


def _counts(prediction: str, reference: str) -> list[int]:
    found = _bleu().corpus_score([prediction], [[reference]])
    return [1, found.sys_len, found.ref_len, *found.counts, *found.totals]
