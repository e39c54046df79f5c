"""Gradient ascent balanced by the retain set."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import check_least

from .base import Batch, Forget, Method, Retain


class GradientDifference(Method):
    """Gradient difference (GradDiff; Liu et al. 2022, arXiv 2203.12817): ascent balanced by the retain set.

    ``L = -CE_forget + retain_weight * CE_retain``

    Followed: locuslab/open-unlearning src/trainer/unlearn/grad_diff.py L38-59, which sums both in every step.

    Differs: nothing from there. MLLMU-Bench's own script takes a whole pass of ``-CE_forget`` and then one of
    ``CE_retain`` in every epoch (baselines/GA_Difference.py L409-441), and so do runs under the published protocol.

    Args:
        retain_weight: weight of the retain term.
    """

    needs = (Forget(), Retain())

    def __init__(self, retain_weight: float = 1.0) -> None:
        check_least("GradientDifference", 0, retain_weight=retain_weight)
        self.retain_weight = retain_weight

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain_ce = batch.retain.mean(-batch.retain.log_probs)
        return {"loss": self.retain_weight * retain_ce - forget_ce, "forget_ce": forget_ce, "retain_ce": retain_ce}
