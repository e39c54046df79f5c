"""The gradient of a single term, kept apart from that of the loss, for methods that shape gradients."""

import torch
from torch import Tensor

from viker_lightning.errors import UserError

from .base import Preparation


def add_to_gradient(p: Tensor, change: Tensor) -> None:
    """Adds a change to the gradient of a weight; what nothing reaches has none, and does not decay."""
    if p.grad is not None:
        p.grad = p.grad + change
    elif change.any():
        p.grad = change


class Gradient:
    """The gradient of a term of the loss in all that is trained, added up over the parts of a step.

    Args:
        run: with the model.
        method: name of who asks.

    Raises:
        UserError: if weights are sharded: no process has the gradient of one then.
    """

    def __init__(self, run: Preparation, method: str) -> None:
        if run.mllm.lockstep is not None:
            raise UserError(f"trainer.strategy: {method} takes gradients of terms, found sharded weights; use ddp")
        self.run = run
        self.weights = {name: p for name, p in run.mllm.named_parameters() if p.requires_grad}
        self._sum: dict[str, Tensor] = {}

    def add(self, term: Tensor) -> None:
        """Adds the gradient of a scalar, whose graph is kept; of a constant, as an empty part has it, there is none."""
        if not term.requires_grad:
            return
        found = torch.autograd.grad(term, list(self.weights.values()), retain_graph=True, allow_unused=True)
        for name, slope in zip(self.weights, found, strict=True):
            if slope is not None:
                self._sum[name] = self._sum[name] + slope if name in self._sum else slope

    def total(self) -> dict[str, Tensor]:
        """The sum over processes of what was added, by name of the weight; begins anew."""
        added, self._sum = self._sum, {}
        return self.run.total({name: added.get(name, torch.zeros_like(p)) for name, p in self.weights.items()})

    def mean(self) -> dict[str, Tensor]:
        """The mean over processes, as a step's own gradient is; begins anew."""
        number = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return {name: slope / number for name, slope in self.total().items()}
