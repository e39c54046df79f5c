"""The plain route: one row a question, the image every time, full distributions; what all else must equal.

Nothing here is packed, cached or projected; the model runs as transformers runs it. Tests and benchmarks compare
against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.models import MLLM, AnswerTokens


def plain_logits(mllm: MLLM, groups: Sequence[ImageGroup]) -> tuple[Tensor, AnswerTokens]:
    """Forwards every question by itself, padded into one batch.

    Args:
        mllm: the model, with or without its adapter as the caller has set it.
        groups: image groups with images.

    Returns:
        ``[T, V]`` logits at the answer positions, and the same as answer tokens, in the order of
        :func:`~viker_lightning.data.packing.pack`.
    """
    asked = [(group, mllm.encoder.encode(vqa, image=True)) for group in groups for vqa in group.vqa]
    prefix = mllm.encoder.prefix(image=True)
    rows = [torch.tensor([*prefix, *q.prompt, *q.answer[:-1]]) for _, q in asked]
    input_ids = pad_sequence(rows, batch_first=True, padding_value=0).to(mllm.device)
    attention_mask = pad_sequence([torch.ones_like(r) for r in rows], batch_first=True).to(mllm.device)
    images = [group.image.open() for group, _ in asked if group.image is not None]
    pixels = mllm.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    hidden = mllm.base.model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        pixel_values=pixels.to(mllm.device, mllm.head.weight.dtype),
        use_cache=False,
    ).last_hidden_state
    starts = [len(prefix) + len(q.prompt) - 1 for _, q in asked]
    picked = torch.cat(
        [hidden[i, s : s + len(q.answer)] for i, (s, (_, q)) in enumerate(zip(starts, asked, strict=True))]
    )
    counts = torch.tensor([len(q.answer) for _, q in asked])
    tokens = AnswerTokens(
        hidden=picked,
        labels=torch.tensor([i for _, q in asked for i in q.answer], device=mllm.device),
        question=torch.arange(len(asked)).repeat_interleave(counts).to(mllm.device),
        private=torch.tensor([flag for _, q in asked for flag in q.private], device=mllm.device),
        n_questions=len(asked),
        head=mllm.head,
    )
    return mllm.head(hidden)[_positions(starts, counts.tolist())].float(), tokens


def plain_ideal(mllm: MLLM, groups: Sequence[ImageGroup], pictures: Sequence[Picture]) -> Tensor:
    """The ideal distribution by definition: k full forwards of the frozen model, averaged.

    Returns:
        ``[T, V]`` probabilities.
    """
    with mllm.frozen():
        return torch.stack(
            [plain_logits(mllm, [replace(g, image=picture) for g in groups])[0].softmax(-1) for picture in pictures]
        ).mean(0)


def _positions(starts: list[int], counts: list[int]) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    columns = torch.cat([torch.arange(s, s + n) for s, n in zip(starts, counts, strict=True)])
    return rows, columns
