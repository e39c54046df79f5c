"""The plain loop, as published scripts write it: two questions a batch, the image in front of each, logits everywhere.

It is as fast as such a loop is: sdpa attention, no gradient for the reference, inputs and pixels prepared beforehand
and not timed. The reference is a second model, or the same model with its adapter switched off.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from viker_lightning.data.records import VQA, Picture
from viker_lightning.models import MLLM

BATCH = 2
BETA = 0.1


@dataclass
class Inputs:
    """A batch of questions behind one image each."""

    inputs: dict[str, Tensor]
    labels: Tensor  # [B, T], -100 outside answers


class PlainLoop:
    """Loss and gradient of one step, batch by batch.

    Args:
        mllm: the adapted model.
        picture: the image the forget questions are about.
        retain: the image the retain questions are about.
        vqa: as many questions for either.
        irrelevant: the k irrelevant images.
        second_model: whether the reference is a copy of the model, as published scripts load it.
    """

    def __init__(
        self,
        mllm: MLLM,
        picture: Picture,
        retain: Picture,
        vqa: Sequence[VQA],
        irrelevant: Sequence[Picture],
        second_model: bool,
    ) -> None:
        self.mllm, self.vqa = mllm, vqa
        self.frozen = copy.deepcopy(mllm.model).unload() if second_model else None
        self.forget = self._batches(picture)
        self.retain = self._batches(retain)
        self.irrelevant = [self._batches(p) for p in irrelevant]
        self.tokens = sum(int((b.labels != -100).sum()) for b in self.forget)

    def _batches(self, picture: Picture) -> list[Inputs]:
        mllm, prefix = self.mllm, self.mllm.prefix(picture)
        encoded = [mllm.encoder.encode(vqa, True) for vqa in self.vqa]
        batches = []
        for first in range(0, len(encoded), BATCH):
            part = encoded[first : first + BATCH]
            rows = [torch.tensor([*prefix, *q.prompt, *q.answer]) for q in part]
            before = [len(prefix) + len(q.prompt) for q in part]
            labels = [torch.cat([torch.full((n,), -100), row[n:]]) for n, row in zip(before, rows, strict=True)]
            ids = pad_sequence(rows, batch_first=True)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            image = picture.open()
            more = mllm.family.plain_inputs(mllm.base, mllm.processor, [image] * len(part), ids)
            inputs = {"input_ids": ids, "attention_mask": mask, **more}
            batches.append(Inputs(inputs, pad_sequence(labels, batch_first=True, padding_value=-100)))
        return batches

    def _logits(self, model, batch: Inputs) -> Tensor:
        """``[N, V]`` at answer positions, out of logits at every position."""
        logits = model(**batch.inputs, use_cache=False).logits[:, :-1].float()
        return logits[batch.labels[:, 1:] != -100]

    def _reference(self, batch: Inputs) -> Tensor:
        with torch.no_grad():
            if self.frozen is not None:
                return self._logits(self.frozen, batch)
            with self.mllm.model.disable_adapter():
                return self._logits(self.mllm.base, batch)

    @staticmethod
    def _labels(batch: Inputs) -> Tensor:
        wanted = batch.labels[:, 1:]
        return wanted[wanted != -100]

    def step(self, method: str) -> float:
        """Accumulates the gradient of a step and returns its loss."""
        total = 0.0
        for loss in getattr(self, method)():
            loss.backward()
            total += loss.item()
        return total

    def gradient_ascent(self) -> Iterator[Tensor]:
        """-CE on the forget set."""
        for batch in self.forget:
            logits = self._logits(self.mllm.base, batch)
            yield -F.cross_entropy(logits, self._labels(batch), reduction="sum") / self.tokens

    def kl_minimization(self) -> Iterator[Tensor]:
        """-CE on the forget set, KL to the frozen model on the retain set."""
        yield from self.gradient_ascent()
        for batch in self.retain:
            p = self._reference(batch).softmax(-1)
            log_q = self._logits(self.mllm.base, batch).log_softmax(-1)
            yield F.kl_div(log_q, p, reduction="sum") / self.tokens

    def npo(self) -> Iterator[Tensor]:
        """Negative preference optimization, by question."""
        for batch in self.forget:
            labels, rows = self._labels(batch), (batch.labels[:, 1:] != -100).nonzero()[:, 0]
            pick = torch.arange(len(labels))
            theirs = self._reference(batch).log_softmax(-1)[pick, labels]
            mine = self._logits(self.mllm.base, batch).log_softmax(-1)[pick, labels]
            ratio = torch.zeros(len(batch.labels)).index_add(0, rows, mine - theirs)
            yield -2 / BETA * F.logsigmoid(-BETA * ratio).sum() / len(self.vqa)

    def viker(self) -> Iterator[Tensor]:
        """-CE on the forget set plus KL to the mean of what the frozen model says behind irrelevant images."""
        for i, batch in enumerate(self.forget):
            p = torch.stack([self._reference(image[i]).softmax(-1) for image in self.irrelevant]).mean(0)
            log_q = self._logits(self.mllm.base, batch).log_softmax(-1)
            ce = F.nll_loss(log_q, self._labels(batch), reduction="sum")
            yield (F.kl_div(log_q, p, reduction="sum") - ce) / self.tokens

    def references(self) -> None:
        """Only the frozen model's part of a ViKeR step."""
        for i in range(len(self.forget)):
            torch.stack([self._reference(image[i]).softmax(-1) for image in self.irrelevant]).mean(0)
