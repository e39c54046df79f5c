"""Sharded tensors put together."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the parts that other processes hold; all processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
