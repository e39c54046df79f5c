"""Processes that share the weights of one model take their passes together.

A sharded model gathers its weights layer by layer in every pass, which takes all processes at once. How many passes a
process makes depends on its data: how many parts a step has, what the frozen model was asked before, how long an answer
gets. So a pass is announced, and whoever has none left makes an empty one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule


class Lockstep:
    """Keeps the passes of all processes in step.

    Args:
        model: what makes a pass: embeddings and decoder layers, sharded.
        head: the output embedding; it is whole on every process from :meth:`together` to :meth:`release`.
        token: id of any token, for empty passes.
    """

    def __init__(self, model: nn.Module, head: nn.Module, token: int) -> None:
        self.model, self.head, self.token = model, head, token
        self._active = False
        self._counted = 0  # passes with gradient since the last levelling
        self._ends: list[Tensor] = []  # what came out of them
        model.register_forward_pre_hook(self._pass_begins, prepend=True)  # before the hook that gathers weights
        model.register_forward_hook(self._pass_ends)

    @contextmanager
    def together(self, keep: bool = False) -> Iterator[None]:
        """Within this context processes may make any number of passes, but no collective call of their own.

        Args:
            keep: whether embeddings and head stay whole afterwards, for a backward pass.
        """
        if self._active:  # within another one
            yield
            return
        if isinstance(self.head, FSDPModule):
            self.head.unshard()
        self._active, self._ends = True, []
        try:
            yield
            while self._anyone(False):
                with torch.no_grad():
                    self._empty()
        finally:
            self._active = False
        if not keep:
            self.release()

    def ends(self) -> list[Tensor]:
        """The last hidden states of all passes with gradient since the last time: each backward pass begins there.

        A loss that stops at a decoder layer does not reach them, but processes gather weights and combine gradients
        layer by layer, in all layers or in none.
        """
        found, self._ends = self._ends, []
        return found

    def level(self) -> Tensor:
        """Zero, whose backward pass makes up for passes that other processes have made more, with gradient.

        To be called by all processes after :meth:`together` and added to the loss.
        """
        mine, self._counted = self._counted, 0
        bounds = torch.tensor([mine, -mine], device=self._device)
        dist.all_reduce(bounds, dist.ReduceOp.MAX)
        most, least = bounds[0].item(), -bounds[1].item()
        total = torch.zeros((), device=self._device)
        for turn in range(int(most - least)):
            with torch.set_grad_enabled(turn < most - mine):
                hidden = self._empty()
            if turn < most - mine:
                total = total + hidden.reshape(-1)[:0].float().sum()
        self._counted, self._ends = 0, []
        return total

    def release(self) -> None:
        """Gives back what others hold of embeddings and head."""
        for module in (self.model, self.head):
            if isinstance(module, FSDPModule):
                module.reshard()

    @property
    def _device(self) -> torch.device:
        return next(self.head.parameters()).device

    def _anyone(self, going: bool) -> bool:
        number = torch.tensor(int(going), device=self._device)
        dist.all_reduce(number)
        return bool(number.item())

    def _empty(self) -> Tensor:
        active, self._active = self._active, False
        ids = torch.full((1, 1), self.token, device=self._device)
        hidden = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
        self._active = active
        return hidden

    def _pass_begins(self, *_: Any) -> None:
        if self._active:
            self._anyone(True)
        if torch.is_grad_enabled():
            self._counted += 1

    def _pass_ends(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if output.last_hidden_state.requires_grad:
            self._ends.append(output.last_hidden_state)
