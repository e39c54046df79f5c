"""Gradient ascent held to the vanilla model on the retain set."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import check_least

from .base import Batch, Forget, Method, Retain


class KLMinimization(Method):
    """KL minimisation (Maini et al. 2024, arXiv 2401.06121): ascent held to the vanilla model on the retain set.

    ``L = -CE_forget + retain_weight * mean_t KL(p0_t || p_t) on retain``, p0 being the vanilla model.

    Followed: locuslab/open-unlearning src/trainer/utils.py L17-31.

    Differs: the KL is a mean over answer tokens. The published scripts take it over prompt, image and padding positions
    too, which makes its scale depend on padding; MLLMU-Bench's (baselines/KL_Min.py L492-556) sums over them, in a pass
    of its own behind a pass of ascent, and so do runs under the published protocol, padding and image left out.
    The vanilla distribution enters through its projection, exactly.

    Args:
        retain_weight: weight of the KL.
    """

    needs = (Forget(), Retain(own="kl"))

    def __init__(self, retain_weight: float = 1.0) -> None:
        check_least("KLMinimization", 0, retain_weight=retain_weight)
        self.retain_weight = retain_weight

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain_kl = batch.retain.mean(batch.kl("retain", "own"))
        return {"loss": self.retain_weight * retain_kl - forget_ce, "forget_ce": forget_ce, "retain_kl": retain_kl}
