"""The ideal distribution of every forget answer, computed once per run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import Picture
from viker_lightning.models.mllm import MLLM

from .prefix import ImagePrefixes
from .reference import Reference, mean_distribution, output_weight, reduce_distribution


class IdealDistribution:
    """Knows, for a question and its answer, what the frozen model would say of each token behind irrelevant images.

    Question and answer prefix are the sample's own (teacher forcing); only the image is another.

    Args:
        mllm: the model.
        pictures: the k irrelevant images.
    """

    def __init__(self, mllm: MLLM, pictures: Sequence[Picture]) -> None:
        self.prefixes = ImagePrefixes(mllm, pictures)
        self._stored: dict[Encoded, Reference] = {}

    def prepare(self, questions: Sequence[Encoded]) -> None:
        """Computes what is not known yet, with a progress bar."""
        new = [q for q in dict.fromkeys(questions) if q not in self._stored]
        weight = output_weight(self.prefixes.mllm.head)
        with tqdm(total=len(new), desc="ideal distribution", unit="question", disable=len(new) < 100) as bar:
            for batch, logits in self.prefixes.logits(new):
                reference = reduce_distribution(mean_distribution(logits), batch.labels, weight)
                parts = reference.to("cpu").split([len(q.answer) for q in batch.encoded])
                self._stored |= dict(zip(batch.encoded, parts, strict=True))
                bar.update(batch.n_questions)

    def reference(self, batch: PackedBatch) -> Reference:
        """The stored reference for a batch, token by token, computed first where it is not known."""
        self.prepare(batch.encoded)
        return Reference.cat([self._stored[q] for q in batch.encoded]).to(batch.labels.device)

    def forget_all(self) -> None:
        """Drops what is stored, but not the images' key/values; for measuring."""
        self._stored.clear()

    def known(self, question: Encoded) -> Reference:
        """The stored reference of one question, on the CPU."""
        return self._stored[question]

    def distribution(self, questions: Sequence[Encoded]) -> Tensor:
        """Full distributions ``[T, V]``, recomputed: for the reverse KL and for showing top tokens."""
        return torch.cat([mean_distribution(logits) for _, logits in self.prefixes.logits(questions)])
