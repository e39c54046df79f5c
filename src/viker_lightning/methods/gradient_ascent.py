"""Gradient ascent on the forget set."""

from torch import Tensor
from typing_extensions import override

from .base import Batch, Method


class GradientAscent(Method):
    """Gradient ascent (GA; Jang et al. 2022, arXiv 2210.01504): the plainest way to forget, and to break a model.

    ``L = -CE_forget``

    Followed: franciscoliu/MLLMU-Bench baselines/GA.py L370-378.

    Differs: the mean is over answer tokens. The script counts the prompt, too, and so do runs under the published
    protocol.
    """

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over answer tokens, nats."""
        return {"loss": batch.forget.mean(batch.forget.log_probs)}
