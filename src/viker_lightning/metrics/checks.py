"""What the scores refuse: a ValueError of one line, which begins with the name of the value."""

from collections.abc import Iterable

import torch
from torch import Tensor


def check_vector(values: Tensor, name: str) -> None:
    """Refuse what is not a non-empty vector of numbers."""
    if values.ndim != 1 or not values.numel():
        raise ValueError(f"{name} must be a non-empty vector, not of shape {tuple(values.shape)}")
    if values.isnan().any():
        raise ValueError(f"{name} holds NaN")


def check_bool(values: Tensor, name: str) -> None:
    """Refuse what is not a non-empty bool vector."""
    check_vector(values, name)
    if values.dtype != torch.bool:
        raise ValueError(f"{name} must be bool, not {values.dtype}")


def check_log_probs(values: Tensor, name: str = "log_probs") -> None:
    """Refuse what is not a non-empty vector of log probabilities."""
    check_vector(values, name)
    if values.max() > 1e-4:  # rounding may lift a log probability this far above zero
        raise ValueError(f"{name} must not be positive: pass log probabilities, not losses")


def as_scores(scores: Tensor | Iterable[float]) -> Tensor:
    """Return numbers as float64 on the CPU; NaN is refused."""
    found = scores.detach() if isinstance(scores, Tensor) else torch.tensor(list(scores), dtype=torch.float64)
    values = found.to("cpu", torch.float64)
    if values.isnan().any():
        raise ValueError("a score is NaN: it would hide every other sample")
    return values
