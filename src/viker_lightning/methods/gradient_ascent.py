"""Gradient ascent on the forget set."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from .base import Batch, Method


class GradientAscent(Method):
    """``L = -CE_forget``: the plainest way to forget, and to break a model."""

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over answer tokens, nats."""
        return {"loss": batch.forget.mean(batch.forget.log_probs)}
