"""Key/values of irrelevant images, computed once, behind which the frozen model reads any question and answer."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import PackedBatch, assemble, in_budget, packed_mask, row_tokens
from viker_lightning.data.records import Picture
from viker_lightning.models.key_values import KeyValues
from viker_lightning.models.logits import logits_of
from viker_lightning.models.mllm import MLLM

from .reference import mean_distribution

STRIDE = 128
"""Room behind the images grows by so many tokens."""

LEAST_TOKENS = 512
"""Tokens that are read at once behind every image, at least, however many images there are."""


def tokens_behind(max_tokens: int, k: int) -> int:
    """How many tokens are read at once behind every one of k images."""
    return max(LEAST_TOKENS, max_tokens // k)


def in_rows(questions: Sequence[Encoded], max_tokens: int) -> list[list[Encoded]]:
    """Questions in rows, each of which is read at once."""
    parts = in_budget([row_tokens(0, [q]) for q in questions], max_tokens)
    return [[questions[i] for i in part] for part in parts]


class ImagePrefixes:
    """The frozen model's state after reading k images, one row an image; as many at a time as the token budget allows.

    Args:
        mllm: the model; its adapter is off while the images are read. Where its family cannot be packed nothing is
            kept, and every question is read behind every image in full.
        pictures: the k irrelevant images; they may differ in size.

    Raises:
        ValueError: if there is no image.
    """

    def __init__(self, mllm: MLLM, pictures: Sequence[Picture]) -> None:
        if not pictures:
            raise ValueError("the ideal distribution needs at least one irrelevant image, found none")
        self.mllm, self.pictures, self.k = mllm, list(pictures), len(pictures)
        self.max_tokens = tokens_behind(mllm.max_tokens, self.k)
        lengths = [len(mllm.prefix(p)) for p in pictures]
        self._lengths, self._longest = torch.tensor(lengths, device=mllm.device), max(lengths)
        if mllm.packs:
            parts = in_budget(lengths, mllm.max_tokens, padded=True)
            read = [self._read([self.pictures[i] for i in part]) for part in parts]
            config = mllm.base.config.get_text_config()
            self._cache = read[0] if len(read) == 1 else KeyValues.joined(config, read, self._longest)

    def _read(self, pictures: list[Picture]) -> KeyValues:
        """Key/values of some of the images, read together."""
        cache = self.mllm.key_values(self._longest)
        with self.mllm.frozen():
            self.mllm.hidden(self.mllm.assemble(pictures, [[]] * len(pictures)), cache)
        return cache

    def hidden(self, questions: Sequence[Encoded]) -> Iterator[tuple[PackedBatch, Tensor]]:
        """Reads questions with their answers behind every image, as many at a time as the token budget allows.

        Args:
            questions: encoded with ``image=True``.

        Yields:
            A packed row of some of the questions, in order, and its ``[k, N, d]`` last hidden states at the N answer
            positions.
        """
        for row in in_rows(questions, self.max_tokens):
            batch = assemble([[]], [row], [None]).to(self.mllm.device)
            yield batch, self._packed(batch) if self.mllm.packs else self._plain(row)

    def distributions(self, questions: Sequence[Encoded]) -> Iterator[tuple[PackedBatch, Tensor]]:
        """The ideal distribution of questions.

        Yields:
            A packed row of some of the questions, in order, and ``[N, V]`` probabilities at its answer positions.
        """
        for batch, hidden in self.hidden(questions):
            with self.mllm.frozen():
                yield batch, mean_distribution(logits_of(self.mllm.head, states) for states in hidden)

    def _packed(self, batch: PackedBatch) -> Tensor:
        width = batch.input_ids.shape[1]
        if self._longest + width > self._cache.room:
            self._cache.resize(self._longest + math.ceil(width / STRIDE) * STRIDE)
        there = torch.arange(self._longest, device=self.mllm.device) < self._lengths[:, None]
        mask = packed_mask(batch.segments.expand(self.k, -1), batch.branches.expand(self.k, -1), there)
        positions = batch.positions + self._lengths[:, None]
        with self.mllm.frozen():
            ids = batch.input_ids.expand(self.k, -1)
            hidden = self.mllm.read(ids, positions, mask, self.pictures, cache=self._cache)
        self._cache.cut(self._longest)
        return hidden[:, batch.columns]

    def _plain(self, row: list[Encoded]) -> Tensor:
        with self.mllm.frozen():
            return torch.stack([self.mllm.answer_tokens(self.mllm.assemble([p], [row])).hidden for p in self.pictures])
