"""GRU: any method, whose gradient is not to work against the retain set."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from viker_lightning.errors import UserError

from .around import Around
from .base import Batch, Method, Preparation, Retain
from .gradients import Gradient


class GRU(Around):
    """GRU (Wang et al. 2025, arXiv 2503.09117): any method, less of its gradient what works against the retain set.

    `g <- g - min(0, <g, m>) / <m, m> * m; m <- smoothing * grad CE_retain + (1 - smoothing) * m`

    g is the gradient of the method inside, over all trained weights that have one; m is a running mean of the gradient
    of the cross-entropy on the retain set. Where they conflict, following g would make retained answers less likely,
    and what of it lies along m is taken away. The retain set is asked in every step, whether or not the method inside
    has a term on it.

    Followed: locuslab/open-unlearning src/trainer/unlearn/gru.py (911e52a, of a proposed change that was not merged).

    Differs: there gradient ascent and NPO alone can be inside, and the gradient of NPO's retain term, which is in its
    reported loss, never reaches the weights; here a method's own retain term is part of g. An optimizer that scales
    weights one by one, as AdamW does, bends the step away from what is left of g, there as here.

    Args:
        method: the method inside.
        smoothing: share of the newest gradient in the running mean, above 0 to 1.
    """

    def __init__(self, method: Method, smoothing: float = 0.8) -> None:
        super().__init__(method)
        if not 0 < smoothing <= 1:
            raise UserError(f"GRU: smoothing={smoothing} must be above 0 and at most 1")
        self.check_inside({})
        self.smoothing, self.shapes_gradients = smoothing, True
        self.copies = method.copies + 2  # the running mean, and the gradient that enters it
        self.needs = method.needs if "retain" in method.streams else (*method.needs, Retain())
        self.retain: Gradient
        self.smoothed: dict[str, Tensor] = {}

    @override
    def before_training(self, run: Preparation) -> None:
        self.method.before_training(run)
        self.retain = Gradient(run, "GRU")

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the method inside; the retain gradient is taken beside it."""
        retain_ce = batch.retain.mean(-batch.retain.log_probs)
        self.retain.add(retain_ce)
        return {**self.method.loss(batch), "retain_ce": retain_ce.detach()}

    @override
    def before_optimizer_step(self, model: nn.Module) -> None:
        """Projects the gradient of the method inside, after what that does to it."""
        self.method.before_optimizer_step(model)
        before = self.smoothed or {name: torch.zeros_like(p) for name, p in self.retain.weights.items()}
        self.smoothed = {
            name: self.smoothing * slope.float() + (1 - self.smoothing) * before[name].to(slope.device)
            for name, slope in self.retain.mean().items()
        }
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        share = conflict(gradients, self.smoothed)
        for name, gradient in gradients.items():
            gradient.sub_(share * self.smoothed[name].to(gradient.dtype))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"smoothed": self.smoothed, "method": self.method.state_dict()}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.smoothed = state["smoothed"]
        if state["method"]:
            self.method.load_state_dict(state["method"])


def conflict(gradients: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """``min(0, <g, m>) / <m, m>`` over all weights together, what of m is to be taken away from g; 0 if m is."""
    product = sum(float((g.float() * others[name]).sum()) for name, g in gradients.items())
    square = sum(float(others[name].square().sum()) for name in gradients)
    return min(0.0, product) / square if square else 0.0
