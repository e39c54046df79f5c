"""Image groups as one batch of token sequences in which every image occurs once.

tokens    : prefix (template start and image), then for each question its prompt and its answer or answers
positions : 0..P-1, then every question restarts at P, and every answer at the end of its prompt
attention : a token sees the prefix, its own prompt and its own answer, causally; never another question or answer
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from .encoding import Encoded
from .records import Picture

PADDING, PREFIX = -1, 0
PROMPT = 0


@dataclass
class PackedBatch:
    """Packed sequences and where in them the answers are.

    Attributes:
        pictures: the image of every row, or ``None``.
        prefixes: the ids every row begins with.
        input_ids: ``[B, T]`` token ids.
        positions: ``[B, T]`` position ids, counted in tokens.
        segments: ``[B, T]``: 0 prefix, j >= 1 the j-th question of the row, -1 padding.
        branches: ``[B, T]``: 0 prefix or prompt, i >= 1 the i-th answer to the question.
        rows: ``[N]`` row of the position that predicts answer token n.
        columns: ``[N]`` column of that position; tokens of different questions may share one.
        labels: ``[N]`` ids of the answer tokens.
        question: ``[N]`` which question, 0..Q-1, an answer token belongs to.
        private: ``[N]`` bool, whether the token belongs to a private span.
        encoded: the Q questions, in order; consecutive ones of a row with the same prompt share its tokens.
        row_of: the row of each question.
    """

    pictures: list[Picture | None]
    prefixes: list[Sequence[int]]
    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    branches: Tensor
    rows: Tensor
    columns: Tensor
    labels: Tensor
    question: Tensor
    private: Tensor
    encoded: list[Encoded]
    row_of: list[int]

    @property
    def n_questions(self) -> int:
        """Number of questions Q."""
        return len(self.encoded)

    @property
    def images(self) -> list[Picture]:
        """The images of the rows that have one."""
        return [picture for picture in self.pictures if picture is not None]

    @property
    def shared(self) -> int:
        """How many tokens of every row need no mask; 0 where rows with and without image need one mask over all."""
        lengths = {len(prefix) for prefix in self.prefixes}
        return lengths.pop() if len(lengths) == 1 else 0

    def to(self, device: torch.device | str) -> "PackedBatch":
        """Copies the tensors to a device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return PackedBatch(**{**vars(self), **moved})


def assemble(
    prefixes: Sequence[Sequence[int]], questions: Sequence[Sequence[Encoded]], pictures: Sequence[Picture | None]
) -> "PackedBatch":
    """Lays out prefixes and encoded questions as packed rows.

    Args:
        prefixes: per row, the ids before its questions (empty when key/values stand before the row).
        questions: per row, its questions; answers to one question stand next to each other.
        pictures: per row, its image.
    """
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    branches: list[list[int]] = []
    rows: list[int] = []
    columns: list[int] = []
    for r, (prefix, row) in enumerate(zip(prefixes, questions, strict=True)):
        start = len(prefix)
        row_ids, row_positions = list(prefix), list(range(start))
        row_segments, row_branches = [PREFIX] * start, [PROMPT] * start
        for j, (prompt, answers) in enumerate(groupby(row, key=lambda q: q.prompt), start=1):
            end = start + len(prompt)
            row_ids += prompt
            row_positions += range(start, end)
            row_segments += [j] * len(prompt)
            row_branches += [PROMPT] * len(prompt)
            last = len(row_ids) - 1 if prompt else start - 1
            if last < 0:
                raise ValueError("labels before the answer need the prefix in the same row")
            for i, q in enumerate(answers, start=1):
                inputs = q.own[:-1]  # the last answer token predicts nothing
                rows += [r] * len(q.answer)
                columns += [c % start - 1 for c in q.lead]
                columns += [last, *range(len(row_ids), len(row_ids) + len(inputs))]
                row_ids += inputs
                row_positions += range(end, end + len(inputs))
                row_segments += [j] * len(inputs)
                row_branches += [i] * len(inputs)
        ids.append(row_ids)
        positions.append(row_positions)
        segments.append(row_segments)
        branches.append(row_branches)
    width = max(len(row) for row in ids)
    encoded = [q for row in questions for q in row]
    sizes = torch.tensor([len(q.answer) for q in encoded], dtype=torch.long)
    return PackedBatch(
        list(pictures),
        list(prefixes),
        _padded(ids, width, 0),
        _padded(positions, width, 0),
        _padded(segments, width, PADDING),
        _padded(branches, width, PROMPT),
        torch.tensor(rows, dtype=torch.long),
        torch.tensor(columns, dtype=torch.long),
        torch.tensor([token for q in encoded for token in q.answer], dtype=torch.long),
        torch.arange(len(encoded)).repeat_interleave(sizes),
        torch.tensor([flag for q in encoded for flag in q.private], dtype=torch.bool),
        encoded,
        [r for r, row in enumerate(questions) for _ in row],
    )


def _padded(rows: list[list[int]], width: int, value: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows], dtype=torch.long)


def packed_mask(segments: Tensor, branches: Tensor, cached: Tensor | None = None) -> Tensor:
    """Attention mask of packed rows.

    Args:
        segments: ``[B, T]`` as in :class:`PackedBatch`.
        branches: ``[B, T]`` as in :class:`PackedBatch`.
        cached: bool ``[B, C]``, which of the C key/value positions before the rows hold something; all of that is
            visible to the whole row.

    Returns:
        Bool ``[B, 1, T, C + T]``, true where a token may look. Padding sees itself, so that no row is empty.
    """
    width = segments.shape[1]
    same_answer = (branches[:, None, :] == PROMPT) | (branches[:, :, None] == branches[:, None, :])
    own = (segments[:, :, None] == segments[:, None, :]) & same_answer
    prefix = (segments == PREFIX)[:, None, :] & (segments != PADDING)[:, :, None]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    mask = (own | prefix) & causal
    if cached is not None:
        mask = torch.cat([cached[:, None].expand(-1, width, -1), mask], dim=-1)
    return mask[:, None]


def row_tokens(prefix: int, questions: Sequence[Encoded]) -> int:
    """How many tokens a packed row of these questions has."""
    shared = sum(len(prompt) for prompt, _ in groupby(q.prompt for q in questions))
    return prefix + shared + sum(len(q.own) - 1 for q in questions)


def in_budget(sizes: Sequence[int], most: int, items: int | None = None, padded: bool = False) -> Iterator[range]:
    """Cuts a list into consecutive parts that stay within a budget.

    Args:
        sizes: tokens of each item.
        most: tokens a part may have; an item larger than that is a part of its own.
        items: how many items a part may have.
        padded: whether every item of a part takes as much room as its largest.

    Yields:
        Index ranges that cover the list.
    """
    first, used, largest = 0, 0, 0
    for i, size in enumerate(sizes):
        count = i - first + 1
        room = max(largest, size) * count if padded else used + size
        if count > 1 and (room > most or (items is not None and count > items)):
            yield range(first, i)
            first, used, largest = i, 0, 0
        used, largest = used + size, max(largest, size)
    if sizes:
        yield range(first, len(sizes))
