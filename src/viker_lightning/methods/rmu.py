"""RMU: hidden states of forgotten answers are steered to a random direction."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Forget, Method, Preparation, Retain


class RMU(Method):
    """RMU (Li et al. 2024, arXiv 2403.03218): hidden states of forgotten answers are steered to a random direction.

    `L = mean_q mean_t |h_l(x_f) - c u|^2 / d + retain_weight * mean_q mean_t |h_l(x_r) - h0_l(x_r)|^2 / d`

    h_l are the d outputs of decoder layer l at the positions that predict answer tokens, h0_l those of the frozen
    model, means are over the tokens of a question and then over questions, and u is drawn once, uniformly from
    ``[0, 1]^d``, and scaled to length 1. What lies above the layer gets no gradient.

    Followed: locuslab/open-unlearning src/trainer/unlearn/rmu.py L100-173, configs/trainer/RMU.yaml (d3d7cf9).

    Differs: there a question's sum over tokens, of shape [b], is divided by the numbers of tokens, of shape [b, 1], so
    that every question is divided by the length of every other one (L113-117). There states are read at the answer
    tokens themselves (labels that are not shifted, L129 and L158), here where they are predicted, so that what precedes
    the first token counts and what follows the last does not. Which weights move is said by ``model.lora``; its WMDP
    variant trains three matrices.

    Args:
        steering: c, the length of the vector that is aimed at.
        layer: l, from 0, or from the end if negative.
        retain_weight: weight of the term on the retain set.
    """

    needs = (Forget(), Retain(own="log_prob"))
    reads_answers = False
    answers_only = True

    def __init__(self, steering: float = 2.0, layer: int = 7, retain_weight: float = 1.0) -> None:
        if steering <= 0 or retain_weight < 0:
            raise UserError(f"RMU: steering={steering} must be > 0, retain_weight={retain_weight} >= 0")
        self.steering, self.layer, self.retain_weight = steering, layer, retain_weight
        self.layers = (layer,)
        self.direction = torch.empty(0)

    @override
    def before_training(self, run: Preparation) -> None:
        """Draws the direction, by the seed of the run; processes share that of the first."""
        width = run.mllm.head.get_parameter("weight").shape[1]
        drawn = torch.rand(width, generator=torch.Generator().manual_seed(torch.initial_seed())).to(run.mllm.device)
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(drawn, 0)
        self.direction = drawn / drawn.norm()

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squares, per dimension."""
        forget, retain = (batch.hidden(stream, self.layer).float() for stream in ("forget", "retain"))
        target = self.steering * self.direction.to(forget.device)
        before = batch.hidden("retain", self.layer, "own")
        steered = batch.forget.mean((forget - target).square().mean(-1), "question")
        kept = batch.retain.mean((retain - before).square().mean(-1), "question")
        return {"loss": steered + self.retain_weight * kept, "steered": steered, "kept": kept}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"direction": self.direction}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.direction = state["direction"]
