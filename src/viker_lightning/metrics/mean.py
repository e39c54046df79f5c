"""Running states that are the same on one process and on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric


class Exact(Metric):
    """Shared base: states keep their type, whatever a module that holds the metric is cast to.

    A sample repeated by a distributed sampler counts twice: the caller removes such repeats.
    """

    full_state_update = False
    is_differentiable = False

    def alone(self) -> Self:
        """Make `compute` read this process only, for a caller that has gathered all samples itself, and return this."""
        self.distributed_available_fn = _never
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        # torchmetrics lets `.to(torch.bfloat16)`, which Lightning calls for "bf16-true", cast the states.
        def move_only(state: Tensor) -> Tensor:
            moved = fn(state)
            return moved if moved.dtype == state.dtype else state.to(moved.device)

        return super()._apply(move_only, exclude_state)


def _never() -> bool:
    return False


class SampleMean(Exact):
    """Shared base: a float64 sum and a count, both summed over processes and never cast.

    Subclasses score their samples in `update` and hand the scores to `_add`.
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        """Start with no samples."""
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, scores: Tensor | Iterable[float]) -> None:
        # The scores are complete and checked before a state changes, so a refused batch leaves nothing behind.
        values = as_scores(scores, self.total.device)
        self.total += values.sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """Return the mean of all samples on all processes.

        Returns:
            A float64 scalar; NaN when there were no samples.
        """
        return self.total / self.count


class Mean(SampleMean):
    """Mean of plain numbers, for a score without a class of its own.

    The value range and the direction are those of the numbers; `higher_is_better` is therefore unset.
    """

    def update(self, value: float | Tensor) -> None:
        """Add one number, or every element of a tensor.

        Args:
            value: A number, or a tensor of any shape of which each element is one sample.

        Raises:
            ValueError: If a value is NaN. Infinite values are kept.
        """
        self._add(value if isinstance(value, Tensor) else [value])


class TwoSamples(Exact):
    """Shared base: two lists of numbers, gathered from all processes, for scores that need every value.

    Subclasses hand numbers to `_add_pair` and read them from `pair`. The order within each list is kept, rank by rank.
    """

    first: list[Tensor]
    second: list[Tensor]

    def __init__(self) -> None:
        """Start with no samples."""
        super().__init__()
        self.add_state("first", [], dist_reduce_fx="cat")
        self.add_state("second", [], dist_reduce_fx="cat")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the states; what a process without samples contributes must match what the others gather."""
        return torch.float64

    def _add_pair(self, first: Tensor | Iterable[float], second: Tensor | Iterable[float]) -> None:
        new = as_scores(first, self.device).flatten(), as_scores(second, self.device).flatten()
        self.first.append(new[0])
        self.second.append(new[1])

    def pair(self) -> tuple[Tensor, Tensor]:
        """Return the two lists as float64 vectors on the CPU."""
        return self._joined(self.first), self._joined(self.second)

    @staticmethod
    def _joined(state: list[Tensor] | Tensor) -> Tensor:
        # One tensor after a reduction over processes, a list before.
        parts = [state] if isinstance(state, Tensor) else state
        return torch.cat([torch.zeros(0, dtype=torch.float64), *(part.cpu() for part in parts)])


def as_scores(scores: Tensor | Iterable[float], device: torch.device | str = "cpu") -> Tensor:
    """Return numbers as float64.

    Args:
        scores: A tensor, or numbers.
        device: Where the result is wanted.

    Raises:
        ValueError: If a number is NaN.
    """
    values = scores.detach() if isinstance(scores, Tensor) else torch.tensor(list(scores), dtype=torch.float64)
    values = values.to(device, torch.float64)
    if values.isnan().any():
        raise ValueError("a score is NaN: it would hide every other sample")
    return values
