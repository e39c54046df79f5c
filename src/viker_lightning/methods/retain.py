"""The cross-entropy on the retain set, which most objectives add to what they forget with."""

from torch import Tensor

from .base import Batch, Retain


def retain(weight: float) -> tuple[Retain, ...]:
    """The retain questions among the needs, unless their weight is 0."""
    return (Retain(),) if weight > 0 else ()


def add_retain(batch: Batch, terms: dict[str, Tensor], weight: float, per: str = "token") -> dict[str, Tensor]:
    """Adds ``weight * CE_retain``, a mean in nats, to the terms of a loss, which then have ``retain_ce``, to be low.

    They stay as they are if the weight is 0. The mean is over answer ``token`` s, or over ``question`` s.
    """
    if weight <= 0:
        return terms
    retain_ce = batch.retain.mean(-batch.retain.log_probs, per)
    return {**terms, "loss": terms["loss"] + weight * retain_ce, "retain_ce": retain_ce}
