"""The plain route: one row a question, the image every time, full distributions; what all else must equal.

Nothing here is packed, cached or projected; the model runs as transformers runs it. Tests compare against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.models import MLLM, AnswerTokens


def plain_logits(mllm: MLLM, groups: Sequence[ImageGroup]) -> tuple[Tensor, AnswerTokens]:
    """Forwards every question by itself, padded into one batch.

    Args:
        mllm: the model, with or without its adapter as the caller has set it.
        groups: image groups with images.

    Returns:
        ``[T, V]`` logits at the answer positions, and the same as answer tokens, in the order of
        the questions.
    """
    batch = mllm.pack(groups)
    hidden = mllm.plain_hidden(batch)
    tokens = AnswerTokens.from_batch(batch, hidden, mllm.head)
    return mllm.head(hidden).float(), tokens


def plain_ideal(mllm: MLLM, groups: Sequence[ImageGroup], pictures: Sequence[Picture]) -> Tensor:
    """The ideal distribution by definition: k full forwards of the frozen model, averaged.

    Returns:
        ``[T, V]`` probabilities.
    """
    with mllm.frozen():
        return torch.stack(
            [plain_logits(mllm, [replace(g, image=picture) for g in groups])[0].softmax(-1) for picture in pictures]
        ).mean(0)
