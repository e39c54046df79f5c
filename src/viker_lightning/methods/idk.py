"""Refusal training: the model learns to say that it does not know (called IDK, or preference-free PO)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.metrics import REFUSALS

from .base import Batch, Method, Needs


class IDK(Method):
    """``L = CE_refusal(forget) + retain_weight * CE_retain``: every forget question is answered by a refusal.

    Args:
        retain_weight: weight of the retain term.
        refusals: what may be said; one is drawn for each question, by its text.
    """

    needs: Needs = {"alternative": {}, "retain": {}}
    answers_only = True

    def __init__(self, retain_weight: float = 1.0, refusals: tuple[str, ...] = REFUSALS) -> None:
        if not refusals:
            raise UserError("IDK: refusals is empty; give at least one sentence")
        self.retain_weight, self.refusals = retain_weight, tuple(refusals)
        self.alternative = self.refusals

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        refusal_ce = batch.alternative.mean(-batch.alternative.log_probs)
        retain_ce = batch.retain.mean(-batch.retain.log_probs)
        return {
            "loss": refusal_ce + self.retain_weight * retain_ce,
            "refusal_ce": refusal_ce.detach(),
            "retain_ce": retain_ce.detach(),
        }
