"""Key/values of irrelevant images, computed once, behind which the frozen model reads any question and answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from transformers import DynamicCache

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import PackedBatch, assemble, packed_mask
from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.models.mllm import MLLM


class ImagePrefixes:
    """The frozen model's state after reading k images, one row an image.

    Args:
        mllm: the model; its adapter is off while the images are read.
        pictures: the k irrelevant images.

    Raises:
        ValueError: if there is no image.
    """

    def __init__(self, mllm: MLLM, pictures: Sequence[Picture]) -> None:
        if not pictures:
            raise ValueError("the ideal distribution needs at least one irrelevant image, found none")
        self.mllm, self.k = mllm, len(pictures)
        batch = mllm.pack([ImageGroup(person="", image=p) for p in pictures])
        self.length = batch.input_ids.shape[1]
        self._cache = DynamicCache(config=mllm.base.config.get_text_config())
        with mllm.frozen():
            mllm.family.last_hidden(
                mllm.base,
                batch.input_ids,
                mllm.features(batch.images),
                packed_mask(batch.segments),
                batch.positions,
                self._cache,
            )

    def logits(self, questions: Sequence[Encoded], max_tokens: int = 512) -> Iterator[tuple[PackedBatch, Tensor]]:
        """Reads questions with their answers behind every image.

        Args:
            questions: encoded with ``image=True``.
            max_tokens: how many question and answer tokens one forward pass takes.

        Yields:
            A packed row of some of the questions, in order, and its ``[k, N, V]`` logits at the N answer positions.
        """
        for part in _budgeted(questions, max_tokens):
            batch = assemble([[]], [part], [], start=self.length).to(self.mllm.device)
            with self.mllm.frozen():
                hidden = self.mllm.family.last_hidden(
                    self.mllm.base,
                    batch.input_ids.expand(self.k, -1),
                    None,
                    packed_mask(batch.segments, cached=self.length),
                    batch.positions.expand(self.k, -1),
                    self._cache,
                )
                self._cache.crop(-batch.input_ids.shape[1])
                yield batch, self.mllm.head(hidden[:, batch.columns])


def _budgeted(questions: Sequence[Encoded], max_tokens: int) -> Iterator[list[Encoded]]:
    part: list[Encoded] = []
    used = 0
    for q in questions:
        size = len(q.prompt) + len(q.answer)
        if part and used + size > max_tokens:
            yield part
            part, used = [], 0
        part.append(q)
        used += size
    if part:
        yield part
