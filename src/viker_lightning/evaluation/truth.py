"""Truth ratios from predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch

from viker_lightning.metrics import truth_ratio
from viker_lightning.metrics.prediction import Prediction

from .protocols import CORRECTED, Protocol


def data_of(split: str) -> Literal["forget", "retain"]:
    """How truth ratios of a split become scores (see :func:`~viker_lightning.metrics.truth_ratio_score`)."""
    return "forget" if split in ("forget", "test") else "retain"


def ratios(found: Sequence[Prediction], protocol: Protocol = CORRECTED) -> list[tuple[Prediction, float]]:
    """Truth ratios TR = P(wrong) / P(true), per token, geometric mean over the wrong answers.

    The true answer is the paraphrased one where there is one. CLEAR as published divides by P(true) of each question
    the mean of the wrong answers of *all* questions of the task; text-only rows of TOFU, which
    are none of its tasks, keep their own.

    Args:
        found: predictions of one split.
        protocol: the one they were made with.

    Returns:
        Every open question that has wrong answers, with its ratio in [0, inf].
    """
    asked = [p for p in found if p.task == "generation" and p.perturbed]
    pools: dict[str, list[float]] = defaultdict(list)
    for p in asked if protocol.pools_wrong_answers else ():
        pools[protocol.task_of(p.question)] += p.perturbed
    means = {task: sum(values) / len(values) for task, values in pools.items() if task}
    ratios = []
    for p in asked:
        true = sum(p.log_probs) / len(p.log_probs) if p.paraphrase is None else p.paraphrase
        task = protocol.task_of(p.question)
        wrong = [means[task]] if task in means else p.perturbed
        ratios.append((p, truth_ratio(torch.tensor([true]), [torch.tensor([value]) for value in wrong])))
    return ratios
