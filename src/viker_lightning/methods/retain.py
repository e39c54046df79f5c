"""The cross-entropy on the retain set, which most objectives add to what they forget with."""

from __future__ import annotations

from torch import Tensor

from viker_lightning.errors import UserError

from .base import Batch, Needs


def check_retain(method: str, weight: float) -> None:
    """Makes sure that what is retained is not unlearned, too.

    Args:
        method: its name, for the message.
        weight: of its term on the retain set.

    Raises:
        UserError: if it is negative, or no number.
    """
    if not weight >= 0:
        raise UserError(f"{method}: retain_weight={weight} must be >= 0")


def with_retain(needs: Needs, weight: float) -> Needs:
    """Needs, and the retain questions unless their weight is 0."""
    return {**needs, "retain": {}} if weight > 0 else needs


def add_retain(batch: Batch, terms: dict[str, Tensor], weight: float, per: str = "token") -> dict[str, Tensor]:
    """Adds ``weight * CE_retain``, a mean in nats, to the terms of a loss.

    Args:
        batch: with the retain questions.
        terms: ``loss``, and whatever else is logged.
        weight: of the cross-entropy.
        per: average over answer ``token`` s, or over ``question`` s.

    Returns:
        With them ``retain_ce``, to be low; the terms as they are if the weight is 0.
    """
    if weight <= 0:
        return terms
    retain_ce = batch.retain.mean(-batch.retain.log_probs, per)
    return {**terms, "loss": terms["loss"] + weight * retain_ce, "retain_ce": retain_ce.detach()}
