"""Gradient ascent that each token's own probability weighs."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import check_least

from .base import Batch, Forget, Method
from .retain import add_retain, retain


class WGA(Method):
    """WGA (Wang et al. 2025, arXiv 2502.19301): gradient ascent that dies down where an answer token is forgotten.

    ``L = mean_t p_t^beta * log p(y_t) + retain_weight * CE_retain``, the weight ``p_t = p(y_t)`` being held fixed for
    the gradient. The pull of a token is bounded and vanishes with its probability.

    Followed: locuslab/open-unlearning src/trainer/utils.py L102-115 and configs/trainer/WGA.yaml at d3d7cf9.

    Differs: a copy of the vanilla model that is made there and never asked (src/trainer/unlearn/wga.py L11-12) is left
    out.

    Args:
        beta: power of the weight, >= 0; 0 is gradient difference.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
    """

    answers_only = True

    def __init__(self, beta: float = 1.0, retain_weight: float = 1.0) -> None:
        check_least("WGA", 0, beta=beta, retain_weight=retain_weight)
        self.beta, self.retain_weight = beta, retain_weight
        self.needs = (Forget(), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget = batch.forget
        weight = (self.beta * forget.log_probs.detach()).exp()
        terms = {"loss": forget.mean(weight * forget.log_probs), "token_weight": forget.mean(weight)}
        return add_retain(batch, terms, self.retain_weight)
