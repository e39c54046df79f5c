"""The output layer in fp32, whatever type the model is kept in.

A logit of a bf16 product has 8 bits: at 10 it is off by up to .03. A KL that is taken from such logits on one side and
from W'p in fp32 on the other (:mod:`viker_lightning.ideal.reference`) is not 0 where the two models are the same, and
its gradient is not either. So logits of answer tokens, and everything that comes after them, are in fp32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

ROWS = 8192
"""Rows of the output embedding that are there in fp32 at a time; a whole copy takes 2 GiB for 152,000 tokens."""


def logits_of(head: nn.Module, hidden: Tensor, exact: Tensor | None = None) -> Tensor:
    """``[T, V]`` next-token logits, fp32.

    An output embedding that is trained, adapted or kept in few bits is asked as it is, and only its answer is in fp32.

    Args:
        head: the output embedding.
        hidden: ``[T, d]`` last hidden states, in the model's type.
        exact: the same in fp32, if the gradients of several terms are to meet there before they are rounded.
    """
    weight = _frozen_weight(head)
    kind = hidden.device.type
    if weight is None or (weight.dtype == torch.float32 and not torch.is_autocast_enabled(kind)):
        return head(hidden).float()
    logits: Tensor = _Logits.apply(hidden.float() if exact is None else exact, weight)
    return logits


def expected_embedding(p: Tensor, weight: Tensor) -> Tensor:
    """``[T, d]`` W'p in fp32.

    Args:
        p: ``[T, V]``, fp32.
        weight: ``[V, d]`` output embedding.
    """
    with torch.autocast(p.device.type, enabled=False):
        if weight.dtype == torch.float32:
            return p @ weight
        total = p.new_zeros(len(p), weight.shape[1])
        for columns, rows in zip(p.split(ROWS, dim=1), weight.split(ROWS), strict=True):
            total.addmm_(columns, rows.float())
        return total


def _frozen_weight(head: nn.Module) -> Tensor | None:
    """The weight of a plain output embedding that stays what it is; ``None`` if there is more to it."""
    if not isinstance(head, nn.Linear) or head.bias is not None:
        return None
    weight = head.weight
    return None if weight.requires_grad or not weight.is_floating_point() else weight


class _Logits(torch.autograd.Function):
    """``W h`` for a frozen W, which is kept as it is and put into fp32 in parts, forwards and backwards."""

    @staticmethod
    @override
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        with torch.autocast(states.device.type, enabled=False):
            if weight.dtype == torch.float32:
                return states @ weight.T
            logits = states.new_empty(len(states), len(weight))
            for found, rows in zip(logits.split(ROWS, dim=1), weight.split(ROWS), strict=True):
                found.copy_(states @ rows.float().T)
            return logits

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return expected_embedding(gradients[0], *ctx.saved_tensors), None
