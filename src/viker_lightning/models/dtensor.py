"""Sharded tensors put together, and taken apart."""

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def gather(tensor: Tensor) -> Tensor:
    """A tensor with the parts that other processes hold; all processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distribute_as(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor in parts if another one is, and where it is; all processes must ask for it together."""
    if not isinstance(other, DTensor):
        return tensor.to(other.device)
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_as(part: Tensor, other: DTensor) -> Tensor:
    """A tensor that is shared out as another one is, from what each process holds; all must ask for it together."""
    there = part.to(other.device)
    return DTensor.from_local(
        there, other.device_mesh, other.placements, shape=other.shape, stride=other.stride()
    ).full_tensor()
