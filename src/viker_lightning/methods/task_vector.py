"""Task vectors: what the model learns of the forget set is taken away from it."""

import torch
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Method, Preparation
from .gradients import Gradient


class TaskVector(Method):
    """Task vectors (Ilharco et al. 2023, arXiv 2212.04089): what fine-tuning on the forget set changes is negated.

    `w = w_0 - scale * (w_f - w_0); w_f = w_0 after steps of AdamW on CE_forget, over the whole forget set each`

    The model learns the people to be forgotten even better, and goes as far to the other side instead. That is one edit
    before the first step, so that what is evaluated and saved is the negated model; ``model.lr`` and
    ``trainer.max_steps`` have no effect. With LoRA the second matrices (B) alone are tuned: the weights' change
    ``alpha / r * B A`` is linear in them, and what is added to B can be negated exactly, in a new adapter and in one
    that training starts from.

    Followed: mlfoundations/task_vectors src/task_vectors.py (3b781e6), and MUSE's baselines/baselines/task_vector.py,
    read in a copy.

    Differs: there the tuned model is a checkpoint that somebody has made; here it is made in memory. MUSE loads both
    checkpoints in bf16 before it subtracts them, in which a difference below 1/256 of a weight is 0; here they are
    fp32, or what ``model.dtype`` says.

    Args:
        lr: learning rate of the fine-tuning.
        steps: how many steps it takes.
        scale: how far the model goes to the other side; 1 is as far as fine-tuning went.
    """

    takes_steps = False
    copies = 5  # weights before, gradients, and its own AdamW

    def __init__(self, lr: float = 1e-3, steps: int = 20, scale: float = 1.0) -> None:
        if lr <= 0 or steps < 1 or scale <= 0:
            raise UserError(f"TaskVector: lr={lr} and scale={scale} must be > 0, steps={steps} >= 1")
        self.lr, self.steps, self.scale = lr, steps, scale

    @override
    def before_training(self, run: Preparation) -> None:
        learned = Gradient(run, "TaskVector")
        weights = {name: p for name, p in learned.weights.items() if "lora_A" not in name}
        before = {name: p.detach().clone() for name, p in weights.items()}
        optimizer = torch.optim.AdamW(weights.values(), self.lr, weight_decay=0.0)
        for step in range(1, self.steps + 1):
            for tokens in run.passes("forget", f"TaskVector: step {step} of {self.steps}", once=True):
                learned.add(tokens.mean(-tokens.log_probs))
            slopes = learned.total()
            for name, p in weights.items():
                p.grad = slopes[name]
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(before[name] - self.scale * (p - before[name]))
        run.mllm.mark_trained()
