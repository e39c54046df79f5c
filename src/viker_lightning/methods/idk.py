"""Refusal training: the model learns to say that it does not know (called IDK, or preference-free PO)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.metrics import REFUSALS

from .base import Batch, Method, require_retain


class IDK(Method):
    """``L = CE_refusal(forget) + retain_weight * CE_retain``: every forget question is answered by a refusal.

    Args:
        retain_weight: weight of the retain term.
        refusals: what may be said; one is drawn for each question, by its text.
    """

    uses_retain = True
    answers_only = True

    def __init__(self, retain_weight: float = 1.0, refusals: tuple[str, ...] = REFUSALS) -> None:
        if not refusals:
            raise UserError("IDK: refusals is empty; give at least one sentence")
        self.retain_weight, self.refusals = retain_weight, tuple(refusals)

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        refusal_ce = batch.forget.mean(-batch.forget.log_probs)
        retain = require_retain(batch)
        retain_ce = retain.mean(-retain.log_probs)
        return {
            "loss": refusal_ce + self.retain_weight * retain_ce,
            "refusal_ce": refusal_ce.detach(),
            "retain_ce": retain_ce.detach(),
        }
