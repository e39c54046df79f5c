"""BLEU of a whole data set, as sacreBLEU computes it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

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


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return sacreBLEU's corpus BLEU over 100.

    n-gram matches are added up over all answers before precisions are taken, so it is not a mean of sentence scores,
    and unlike `bleu_mllmu` it is comparable between papers: 13a tokens, case matters, exponential smoothing
    (`sacrebleu_signature`). In [0, 1]; sacreBLEU and papers print it times 100. High is wanted on data to keep, low on
    data to forget.

    Post, A Call for Clarity in Reporting BLEU Scores (arXiv 1804.08771).

    Args:
        predictions: The generated answers.
        references: The true answers, one for each.

    Raises:
        ValueError: If there are no answers, or the numbers of both differ.
    """
    if not predictions:
        raise ValueError("no answers: their BLEU is undefined")
    rows: list[list[int]] = []  # length of answer and reference, matches of each order, n-grams of each order
    for prediction, reference in zip(predictions, references, strict=True):
        found = _bleu().corpus_score([prediction], [[reference]])
        rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    length, reference_length, *grams = (sum(column) for column in zip(*rows, strict=True))
    return float(_bleu().compute_bleu(grams[:_ORDER], grams[_ORDER:], length, reference_length, "exp").score / 100)
