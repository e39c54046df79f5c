"""Flat logits on the forget set, under a bound on the retain loss that a dual weight keeps."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Forget, Method, Retain


class PDU(Method):
    """PDU (Entesari et al. 2025, arXiv 2506.05314): logits are flattened while the retain loss is held at a bound.

    ``L = mean_t (max_v z_t(v) - mean_v z_t(v))^2 on the forget set + mu * (CE_retain - bound)``, z being the student's
    logits. After every step ``mu = max(0, mu + rate * (CE_retain - bound))``: the weight of the retain set rises while
    its loss is above the bound and falls while it is below.

    Followed: locuslab/open-unlearning src/trainer/unlearn/pdu.py L40-134 and configs/trainer/PDU.yaml at d3d7cf9; the
    bound and weight of community/methods/PDU/run.sh.

    Differs: the mask there is not shifted (L121-122), so that the logits before the first answer token are spared and
    those behind the last are flattened; each process moves a weight of its own by its own batch (L59-62); and a
    run that is resumed begins with the first weight again, since no checkpoint has it. Here positions are those that
    predict answer tokens, the weight is moved by the mean over all processes, and it is kept. The warm-up is in steps,
    there in epochs.

    Args:
        bound: cross-entropy on the retain set, nats a token, that is aimed at: somewhat above the vanilla model's.
        retain_weight: mu in the first step.
        rate: of the dual weight.
        warmup: steps before it moves.
    """

    needs = (Forget(), Retain())
    answers_only = True

    def __init__(self, bound: float = 0.3, retain_weight: float = 100.0, rate: float = 5.0, warmup: int = 0) -> None:
        if bound <= 0 or retain_weight < 0 or rate <= 0 or warmup < 0:
            raise UserError(
                f"PDU: bound={bound} and rate={rate} must be > 0, retain_weight={retain_weight} and warmup={warmup} "
                ">= 0"
            )
        self.bound, self.retain_weight, self.rate, self.warmup = bound, retain_weight, rate, warmup
        self.weight, self.steps = float(retain_weight), 0

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens."""
        forget, retain = batch.forget, batch.retain
        margin = forget.mean((forget.logits.amax(-1) - forget.logits.mean(-1)) ** 2)
        excess = retain.mean(-retain.log_probs - self.bound)
        weight = retain.token_share(torch.full_like(retain.log_probs, self.weight))
        loss = margin + self.weight * excess
        return {"loss": loss, "margin": margin, "retain_excess": excess, "retain_weight": weight}

    @override
    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Moves the dual weight, unless the step's loss is no number."""
        self.steps += 1
        excess = terms["retain_excess"].item()
        if self.steps > self.warmup and terms["retain_excess"].isfinite():
            self.weight = max(0.0, self.weight + self.rate * excess)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "steps": self.steps}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight, self.steps = state["weight"], state["steps"]
