"""Whether a model is still itself: a quick look at what it says about people it must not forget."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from viker_lightning.data.records import ImageGroup
from viker_lightning.metrics import repetition
from viker_lightning.models import MLLM, generate

HEALTH_TOKENS = 32
"""Answers are cut here: a loop shows long before."""


def measure_health(mllm: MLLM, groups: Sequence[ImageGroup], answers: bool) -> dict[str, float]:
    """Asks retain questions.

    Args:
        mllm: the model.
        groups: image groups with open questions.
        answers: whether greedy answers are wanted, too; they cost most of the time.

    Returns:
        ``retain loss``: mean cross-entropy of the answer tokens, nats, >= 0, low is good; with answers ``repetition``:
        mean share of repeated word trigrams, 0-1, low is good.
    """
    training = mllm.training
    mllm.eval()
    with torch.no_grad(), mllm.together():
        losses = [-mllm.answer_tokens(mllm.pack([group])).log_probs.float() for group in groups]
        found = {"retain loss": torch.cat(losses).mean().item()}
        if answers:
            said = [text for row in generate(mllm, groups, HEALTH_TOKENS) for text in row]
            found["repetition"] = sum(map(repetition, said)) / len(said)
    mllm.train(training)
    return found
