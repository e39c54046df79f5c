"""MMUnlearner: gradient difference that forgets with those weights alone that matter more for the forget set."""

import random
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Forget, Method, Preparation, Retain
from .gradients import Gradient, add_to_gradient

DRAWS = 8
"""Backward passes in which the Fisher information of a stream is estimated; more are more exact."""


class MMUnlearner(Method):
    """MMUnlearner (Huo et al. 2025, arXiv 2502.11051): forgets with the weights that matter more for the forget set.

    `g = -m * grad CE_forget + retain_weight * grad CE_retain; m = 1[(F_f + 1e-15) / (F_r + 1e-15) >= threshold]`

    F_f and F_r, one number a weight, are the diagonals of the empirical Fisher information on the forget and the retain
    set, before the first step: means over questions of the squared gradient of a question's cross-entropy. They are
    estimated without bias: with random signs s_q, the square of ``grad sum_q s_q CE_q`` is on average the sum of the
    squares. The mask m is kept in checkpoints.

    Followed: Z1zs/MMUnlearner data_process/SFRon.py L39-130 and baselines/MLLMU_manifold.py L231-266 (fa77c66).

    Differs: there gradients of batches of 4 are squared, so that the mask depends on batch size and order. There
    forget and retain batches take an optimizer step each, the gradient is clipped before it is masked, so that masked
    weights take their part of the norm away from the others (L233-250), and momentum and decay move masked weights;
    here both gradients make one step, what is masked moves by the retain set alone, and clipping comes last. There a
    forget step that fails is passed over in silence (the same lines), and a second epoch finds no forget data
    (L220-221). There the weights to be preserved include those for questions about the forgotten people without image,
    since their text is to be kept; here a person is to be forgotten in both, and F_r is of the retain set. Of a new
    adapter half of the matrices have no gradient yet (B is 0, so A has none): both F are 0 there, and m is 1.

    Args:
        threshold: how much more a weight must matter for the forget set.
        retain_weight: weight of the cross-entropy on the retain set.
    """

    needs = (Forget(), Retain())
    shapes_gradients = True
    copies = DRAWS  # a gradient of each draw, before the first step

    def __init__(self, threshold: float = 1.0, retain_weight: float = 1.0) -> None:
        if threshold <= 0 or retain_weight < 0:
            raise UserError(f"MMUnlearner: threshold={threshold} must be > 0, retain_weight={retain_weight} >= 0")
        self.threshold, self.retain_weight = threshold, retain_weight
        self.mask: dict[str, Tensor] = {}
        self.forget: Gradient

    @override
    def before_training(self, run: Preparation) -> None:
        """Finds the mask; a resumed run has it in its state."""
        self.forget = Gradient(run, "MMUnlearner")
        if not run.resumed:
            important = {stream: fisher(run, stream) for stream in ("forget", "retain")}
            self.mask = salient(important["forget"], important["retain"], self.threshold)

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats; the gradient of the forget term is taken apart from the loss."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain_ce = batch.retain.mean(-batch.retain.log_probs)
        self.forget.add(forget_ce)
        forget_ce = forget_ce.detach()
        return {"loss": self.retain_weight * retain_ce - forget_ce, "forget_ce": forget_ce, "retain_ce": retain_ce}

    @override
    def before_optimizer_step(self, model: nn.Module) -> None:
        slopes = self.forget.mean()
        for name, p in model.named_parameters():
            if name in slopes:
                add_to_gradient(p, -slopes[name] * self.mask[name].to(p.device))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"mask": self.mask}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mask = state["mask"]


def fisher(run: Preparation, stream: str) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information on a stream, by name of the weight."""
    draws, questions = [Gradient(run, "MMUnlearner") for _ in range(DRAWS)], 0
    for tokens in run.passes(stream, f"MMUnlearner: {stream}", once=True):
        numbers = range(tokens.first, tokens.first + tokens.n_questions)  # whatever process reads them
        signs = [random.Random(f"{stream}/{number}") for number in numbers]
        drawn = [[sign.choice((-1.0, 1.0)) for _ in range(DRAWS)] for sign in signs]
        ce = tokens.mean_by_question(-tokens.log_probs)
        for draw, sign in zip(draws, ce.new_tensor(drawn).T, strict=True):
            draw.add((sign * ce).sum())
        questions += tokens.n_questions
    number = run.total({"questions": torch.tensor(float(questions), device=run.mllm.device)})["questions"].item()
    found = [draw.total() for draw in draws]
    return {name: torch.stack([one[name].float() for one in found]).square().mean(0) / number for name in found[0]}


def salient(forget: dict[str, Tensor], retain: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Which weights matter more for the forget set, from the Fisher information on both."""
    return {name: (f + 1e-15) / (retain[name] + 1e-15) >= threshold for name, f in forget.items()}
