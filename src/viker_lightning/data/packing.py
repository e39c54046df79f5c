"""Image groups as one batch of token sequences in which every image occurs once.

tokens    : prefix (template start and image), then for each question its own tokens
positions : 0..P-1, then every question restarts at P
attention : a token sees the prefix and its own question, causally, never another question
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .encoding import Encoded, Encoder
from .records import ImageGroup, Picture

PADDING, PREFIX = -1, 0


@dataclass
class PackedBatch:
    """Packed sequences and where in them the answers are.

    Attributes:
        images: the image of every row that has one, in row order.
        input_ids: ``[B, T]`` token ids.
        positions: ``[B, T]`` position ids.
        segments: ``[B, T]``: 0 prefix, j >= 1 the j-th question of the row, -1 padding.
        rows: ``[N]`` row of the position that predicts answer token n.
        columns: ``[N]`` column of that position.
        labels: ``[N]`` ids of the answer tokens.
        question: ``[N]`` which question, 0..Q-1, an answer token belongs to.
        private: ``[N]`` bool, whether the token belongs to a private part.
        encoded: the Q questions, in order.
    """

    images: list[Picture]
    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    rows: Tensor
    columns: Tensor
    labels: Tensor
    question: Tensor
    private: Tensor
    encoded: list[Encoded]

    @property
    def n_questions(self) -> int:
        """Number of questions Q."""
        return len(self.encoded)

    def to(self, device: torch.device | str) -> PackedBatch:
        """Copies the tensors to a device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return PackedBatch(**{**vars(self), **moved})


def pack(groups: Sequence[ImageGroup], encoder: Encoder) -> PackedBatch:
    """Packs the open questions of image groups, one row a group.

    Args:
        groups: image groups with at least one question each.
        encoder: tokenizer and template.

    Returns:
        A batch whose questions are numbered in the order of ``groups``.
    """
    prefixes = [encoder.prefix(group.image is not None) for group in groups]
    questions = [[encoder.encode(vqa, group.image is not None) for vqa in group.vqa] for group in groups]
    return assemble(prefixes, questions, [group.image for group in groups if group.image is not None])


def assemble(
    prefixes: Sequence[Sequence[int]], questions: Sequence[Sequence[Encoded]], images: list[Picture], start: int = 0
) -> PackedBatch:
    """Lays out prefixes and encoded questions as packed rows.

    Args:
        prefixes: per row, the ids before its questions (may be empty when ``start`` key/values stand before the row).
        questions: per row, its questions.
        images: images in the order of their rows.
        start: number of positions that already precede every row (a key/value prefix).
    """
    width = max(
        len(prefix) + sum(len(q.prompt) + len(q.answer) - 1 for q in row)
        for prefix, row in zip(prefixes, questions, strict=True)
    )
    ids, positions, segments = [], [], []
    rows: list[int] = []
    columns: list[int] = []
    labels: list[int] = []
    question: list[int] = []
    private: list[bool] = []
    number = 0
    for r, (prefix, row) in enumerate(zip(prefixes, questions, strict=True)):
        row_ids, row_positions, row_segments = list(prefix), list(range(len(prefix))), [PREFIX] * len(prefix)
        first = start + len(prefix)
        for j, q in enumerate(row, start=1):
            tokens = (*q.prompt, *q.answer[:-1])  # the last answer token predicts nothing
            predicts = len(row_ids) + len(q.prompt) - 1
            rows += [r] * len(q.answer)
            columns += range(predicts, predicts + len(q.answer))
            labels += q.answer
            private += q.private
            question += [number] * len(q.answer)
            row_ids += tokens
            row_positions += range(first, first + len(tokens))
            row_segments += [j] * len(tokens)
            number += 1
        missing = width - len(row_ids)
        ids.append(row_ids + [0] * missing)
        positions.append(row_positions + [0] * missing)
        segments.append(row_segments + [PADDING] * missing)
    return PackedBatch(
        images,
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(segments),
        torch.tensor(rows),
        torch.tensor(columns),
        torch.tensor(labels),
        torch.tensor(question),
        torch.tensor(private, dtype=torch.bool),
        [q for row in questions for q in row],
    )


def packed_mask(segments: Tensor, cached: int = 0) -> Tensor:
    """Attention mask of packed rows.

    Args:
        segments: ``[B, T]`` as in :class:`PackedBatch`.
        cached: number of key/value positions before the rows, visible to all of them.

    Returns:
        Bool ``[B, 1, T, cached + T]``, true where a token may look. Padding sees itself, so that no row is empty.
    """
    width = segments.shape[1]
    own = segments[:, :, None] == segments[:, None, :]
    prefix = (segments == PREFIX)[:, None, :] & (segments != PADDING)[:, :, None]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    mask = ((own | prefix) & causal)[:, None]
    return torch.nn.functional.pad(mask, (cached, 0), value=True) if cached else mask
