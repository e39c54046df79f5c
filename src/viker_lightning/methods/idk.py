"""Refusal training: the model learns to say that it does not know (called IDK, or preference-free PO)."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError, check_least
from viker_lightning.metrics import REFUSALS

from .base import Alternative, Batch, Method, Retain


class IDK(Method):
    """Refusal training (IDK; Maini et al. 2024, arXiv 2401.06121): every forget question is answered by a refusal.

    ``L = CE_refusal(forget) + retain_weight * CE_retain``

    Followed: somvy/multimodal_unlearning mm/trainer.py L355-358 (CLEAR).

    Differs: the refusal is what is trained on. CLEAR's data (mm/dataset.py L262-266) put the true answers in its place
    from one commit on, so that its IDK teaches the people that are to be forgotten. A refusal is drawn by the text of
    its question, so that one question has the same one in every epoch. Where the data correct an answer, its correction
    is learned in place of a refusal. This is no preference optimisation.

    Args:
        retain_weight: weight of the retain term.
        refusals: what may be said; one is drawn for each question, by its text.
    """

    answers_only = True

    def __init__(self, retain_weight: float = 1.0, refusals: tuple[str, ...] = REFUSALS) -> None:
        if not refusals:
            raise UserError("IDK: refusals is empty; give at least one sentence")
        check_least("IDK", 0, retain_weight=retain_weight)
        self.retain_weight, self.refusals = retain_weight, tuple(refusals)
        self.needs = (Alternative(self.refusals), Retain())

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        refusal_ce = batch.alternative.mean(-batch.alternative.log_probs)
        retain_ce = batch.retain.mean(-batch.retain.log_probs)
        return {"loss": refusal_ce + self.retain_weight * retain_ce, "refusal_ce": refusal_ce, "retain_ce": retain_ce}
