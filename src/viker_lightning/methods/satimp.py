"""Gradient ascent weighed by how much of a token is left to forget, and by how much it matters."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import check_least

from .base import Batch, Forget, Method
from .retain import add_retain, retain


class SatImp(Method):
    """SatImp (Yang et al. 2025, arXiv 2505.11953): gradient ascent on what is neither forgotten nor common.

    ``L = mean_t p_t^beta1 * (1 - p_t)^beta2 * log p(y_t) + retain_weight * CE_retain``, the weights of
    ``p_t = p(y_t)`` being held fixed for the gradient.

    Followed: locuslab/open-unlearning src/trainer/utils.py L118-134 and configs/trainer/SatImp.yaml at d3d7cf9.

    Differs: both terms have a weight there; here ``retain_weight`` is their ratio, 1 to 0.1 in the YAML. Who makes the
    class without it gets 0.1 to 1 (src/trainer/unlearn/satimp.py L7). A copy of the vanilla model that is made there
    and never asked (L14-15) is left out.

    Args:
        beta1: power of the probability, >= 0: what is forgotten already is left alone.
        beta2: power of the rest to 1, >= 0: what goes without saying is left alone.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
    """

    answers_only = True

    def __init__(self, beta1: float = 5.0, beta2: float = 1.0, retain_weight: float = 10.0) -> None:
        check_least("SatImp", 0, beta1=beta1, beta2=beta2, retain_weight=retain_weight)
        self.beta1, self.beta2, self.retain_weight = beta1, beta2, retain_weight
        self.needs = (Forget(), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget = batch.forget
        log_p = forget.log_probs.detach()
        weight = (self.beta1 * log_p).exp() * (-log_p.expm1()).clamp_min(0) ** self.beta2  # log p may round above 0
        terms = {"loss": forget.mean(weight * forget.log_probs), "token_weight": forget.mean(weight)}
        return add_retain(batch, terms, self.retain_weight)
