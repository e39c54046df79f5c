"""A mean over samples that is the same on one process and on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric


class SampleMean(Metric):
    """Shared base: a float64 sum and a count, both summed over processes and never cast.

    Subclasses score their samples in `update` and hand the scores to `_add`. A sample repeated by a distributed
    sampler counts twice: the caller removes such repeats.
    """

    full_state_update = False
    is_differentiable = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        """Start with no samples."""
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, scores: Tensor | Iterable[float]) -> None:
        # The scores are complete and checked before a state changes, so a refused batch leaves nothing behind.
        values = scores if isinstance(scores, Tensor) else torch.tensor(list(scores), dtype=torch.float64)
        values = values.to(self.total.device, torch.float64)
        if values.isnan().any():
            raise ValueError("a score is NaN: it would hide every other sample in the mean")
        self.total += values.sum()
        self.count += values.numel()

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        # torchmetrics lets `.to(torch.bfloat16)`, which Lightning calls for "bf16-true", cast the states.
        def move_only(state: Tensor) -> Tensor:
            moved = fn(state)
            return moved if moved.dtype == state.dtype else state.to(moved.device)

        return super()._apply(move_only, exclude_state)

    def compute(self) -> Tensor:
        """Return the mean of all samples on all processes.

        Returns:
            A float64 scalar; NaN when there were no samples.
        """
        return self.total / self.count


class Mean(SampleMean):
    """Mean of plain numbers, for a score without a class of its own (such as `exact_memorization`).

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
