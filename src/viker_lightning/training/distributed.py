"""What a training step needs besides where several processes take it together; one process needs nothing."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from typing_extensions import override

from viker_lightning.models import MLLM, gradient_states
from viker_lightning.models.dtensor import distribute_as

from .sharding import FSDP2, shard

Part = TypeVar("Part")


class Processes:
    """The processes that take a step together; this is one by itself, for which nothing is to be done."""

    def parts_needed(self, parts: int) -> int:
        """How many parts this process's step must have, given how many its own questions take."""
        return parts

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means of scalars over processes."""
        return values

    def share(self, parts: list[Part]) -> list[Part]:
        """This process's share of what all do once, before the first step."""
        return parts

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums of tensors over processes that each did a share."""
        return values

    def complete(self, loss: Tensor, last: bool) -> Tensor:
        """The loss of a part, whose backward pass also does what other processes wait for.

        Args:
            loss: scalar.
            last: whether no part of the step follows.
        """
        return loss

    def combine_gradients(self, shows_image: bool, deepest: int | None = None) -> None:
        """Makes the gradients of all processes one, after the last backward pass of a step.

        Args:
            shows_image: whether this process's step has an image.
            deepest: the last decoder layer whose hidden states the loss reads, if it reads no words; else ``None``.
        """

    def clip_gradients(self, parameters: Iterable[nn.Parameter], most: float) -> bool:
        """Scales gradients down to a norm of ``most``, where the trainer cannot; returns whether it did."""
        return False


class DataParallel(Processes):
    """Every process has the whole model, and DDP averages gradients in the last backward pass of a step."""

    def __init__(self, mllm: MLLM, number: int) -> None:
        self.mllm, self.number = mllm, number

    @override
    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        total = torch.stack(list(values.values())).to(self.mllm.device, torch.float32)
        dist.all_reduce(total)
        return dict(zip(values, total / self.number, strict=True))

    @override
    def share(self, parts: list[Part]) -> list[Part]:
        return parts[dist.get_rank() :: self.number]

    @override
    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        totals = {name: value.detach().clone() for name, value in values.items()}
        for value in totals.values():
            dist.all_reduce(value)
        return totals

    @override
    def complete(self, loss: Tensor, last: bool) -> Tensor:
        """Gives zeros as gradient to what the loss does not reach: DDP waits for one of every weight.

        That is a projector without an image, and what lies above the hidden states that a loss reads.
        """
        if not last:
            return loss
        used = {id(node.variable) for node in graph_of(loss) if hasattr(node, "variable")}
        return with_zeros(loss, [p for p in self.mllm.parameters() if p.requires_grad and id(p) not in used])

    @override
    def combine_gradients(self, shows_image: bool, deepest: int | None = None) -> None:
        """Has the optimizer skip what no process's loss has reached, as it does on one process.

        That is the projector in a step in which no process shows an image, and what lies above the layer at which a
        loss stops.
        """
        unseen = projector(self.mllm)
        if unseen and not self._largest(int(shows_image)):
            for p in unseen:
                p.grad = None
        if deepest is None:
            return
        above = [p for p in self.mllm.above(deepest)[0] if p.requires_grad]
        states = gradient_states([p.grad for p in above], self.mllm.device)[:-1]
        for p, (some, _) in zip(above, states, strict=True):
            if not some:  # it is to have none; if it has one, the check of the first step says so
                p.grad = None

    def _largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        found = torch.tensor(number, device=self.mllm.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found.item())


class Sharded(DataParallel):
    """Every process has a part of the language model's weights (:class:`FSDP2`), so that all make as many passes."""

    @override
    def parts_needed(self, parts: int) -> int:
        return self._largest(parts)

    @override
    def share(self, parts: list[Part]) -> list[Part]:
        """All: a pass takes all processes, and its backward pass averages over them."""
        return parts

    @override
    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return values

    @override
    def complete(self, loss: Tensor, last: bool) -> Tensor:
        """Has the backward pass go through all decoder layers of all passes, as those of other processes do.

        Where a loss stops at a layer, the later ones are gone through with zeros.
        """
        assert self.mllm.lockstep is not None
        ends, reached = self.mllm.lockstep.ends(), graph_of(loss)
        return with_zeros(loss, [end for end in ends if end.grad_fn not in reached]) + self.mllm.lockstep.level()

    @override
    def combine_gradients(self, shows_image: bool, deepest: int | None = None) -> None:
        self._average_whole_gradients()
        super().combine_gradients(shows_image, deepest)

    def _average_whole_gradients(self) -> None:
        """Averages the gradients of what is whole in a step, and gives embeddings back to their shards.

        The gradients of decoder layers are averaged already, by the backward pass.
        """
        whole = {n: p for n, p in self.mllm.named_parameters() if p.requires_grad and not isinstance(p, DTensor)}
        gradients = {name: p.grad for name, p in whole.items()}
        for p in whole.values():
            p.grad = None
        assert self.mllm.lockstep is not None
        self.mllm.lockstep.release()
        parameters = dict(self.mllm.named_parameters())
        for name, gradient in gradients.items():
            p = parameters[name]
            mine = torch.zeros(p.shape, dtype=p.dtype, device=p.device) if gradient is None else gradient
            dist.all_reduce(mine)
            p.grad = distribute_as(mine / self.number, p)

    @override
    def clip_gradients(self, parameters: Iterable[nn.Parameter], most: float) -> bool:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return True
        shards = [g.to_local() for g in gradients if isinstance(g, DTensor)]
        whole = [g for g in gradients if not isinstance(g, DTensor)]
        squares = torch.stack([_square(some, gradients[0].device) for some in (shards, whole)])
        dist.all_reduce(squares[:1])
        factor = most / (squares.sum().sqrt().item() + 1e-6)  # as torch.nn.utils.clip_grad_norm_
        if factor < 1 or not math.isfinite(factor):
            for g in gradients:
                g.mul_(factor)
        return True


def join(mllm: MLLM, trainer: Trainer) -> Processes:
    """The processes of a trainer; shares the model's weights out among them if the strategy says so."""
    if isinstance(trainer.strategy, FSDP2):
        shard(mllm, trainer.strategy.device_mesh["data_parallel"])
        return Sharded(mllm, trainer.world_size)
    return DataParallel(mllm, trainer.world_size) if trainer.world_size > 1 else Processes()


def projector(mllm: MLLM) -> list[nn.Parameter]:
    """What is trained besides the language model and its output embedding; only images reach it."""
    language = {id(p) for module in (mllm.language_model, mllm.head) for p in module.parameters()}
    return [p for p in mllm.parameters() if p.requires_grad and id(p) not in language]


def graph_of(loss: Tensor) -> set[Any]:
    """The nodes of the graph through which the backward pass of a loss goes."""
    nodes, following = set(), [loss.grad_fn]
    while following:
        node = following.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            following += [before for before, _ in node.next_functions]
    return nodes


def with_zeros(loss: Tensor, tensors: Iterable[Tensor]) -> Tensor:
    """The same loss, which also reaches these tensors, with zeros as gradient."""
    return sum((t.reshape(-1)[:0].float().sum() for t in tensors), loss)  # whatever is in them, even nan


def _square(tensors: list[Tensor], device: torch.device) -> Tensor:
    """Square of the norm of tensors on a device, of which there may be none."""
    if not tensors:
        return torch.zeros((), device=device)
    return torch.stack([n.float() for n in torch._foreach_norm(tensors)]).square().sum()
