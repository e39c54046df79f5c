"""Gradient ascent held to the vanilla model on the retain set."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from .base import Batch, Method, Needs


class KLMinimization(Method):
    """``L = -CE_forget + retain_weight * KL(vanilla || student) on the retain set``, at answer positions only.

    The formula is open-unlearning's (src/trainer/utils.py L17-31); published MLLM scripts take the KL over prompt,
    image and padding positions too, which makes its scale depend on padding. The vanilla distribution enters through
    its projection, exactly.

    Args:
        retain_weight: weight of the KL.
    """

    needs: Needs = {"forget": {}, "retain": {"own": "kl"}}

    def __init__(self, retain_weight: float = 1.0) -> None:
        self.retain_weight = retain_weight

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain_kl = batch.retain.mean(batch.kl("retain", "own"))
        return {
            "loss": self.retain_weight * retain_kl - forget_ce,
            "forget_ce": forget_ce.detach(),
            "retain_kl": retain_kl.detach(),
        }
