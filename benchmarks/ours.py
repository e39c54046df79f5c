"""The product's own classes, put together as a training step does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.ideal import (
    IdealDistribution,
    OwnReference,
    Reference,
    mean_distribution,
    output_weight,
    reduce_distribution,
)
from viker_lightning.methods import NPO, Batch, GradientAscent, KLMinimization, ViKeR
from viker_lightning.models import MLLM
from viker_lightning.models.vision import Vision

METHODS = {
    "gradient_ascent": GradientAscent(),
    "kl_minimization": KLMinimization(),
    "npo": NPO(beta=0.1),
    "viker": ViKeR(lam=1.0),
}

ROUTES = ("packed", "prefix", "store")
"""Packed only; with features and irrelevant images' key/values kept; with references kept too."""


class OurLoop:
    """Loss and gradient of one step.

    Args:
        mllm: the adapted model.
        picture: the image the forget questions are about.
        retain: the image the retain questions are about.
        vqa: as many questions for either.
        irrelevant: the k irrelevant images.
        route: one of :data:`ROUTES`.
    """

    def __init__(
        self,
        mllm: MLLM,
        picture: Picture,
        retain: Picture,
        vqa: Sequence[VQA],
        irrelevant: Sequence[Picture],
        route: str,
    ) -> None:
        self.mllm, self.route, self.irrelevant = mllm, route, irrelevant
        self.vision = Vision(mllm.family, mllm.processor, "off" if route == "packed" else "memory")
        self.forget = ImageGroup("forget", picture, vqa=tuple(vqa))
        self.retain = ImageGroup("retain", retain, vqa=tuple(vqa))
        self.ideal = IdealDistribution(mllm, irrelevant, "memory" if route == "store" else "off")
        if route == "store":
            self.ideal.prepare(mllm.pack([self.forget]).encoded)
            self.ideal.release()
        self.own = {
            "npo": OwnReference(mllm, route == "store", reduced=False),
            "kl_minimization": OwnReference(mllm, route == "store"),
        }

    def step(self, method: str) -> float:
        """Accumulates the gradient of a step and returns its loss."""
        self.mllm.vision = self.vision
        forget = self.mllm.pack([self.forget])
        references: dict[tuple[str, str], Reference] = {}
        if method == "viker":
            ideal = self._packed_ideal() if self.route == "packed" else self.ideal.reference(forget)
            references["forget", "irrelevant"] = ideal
        elif method == "npo":
            references["forget", "own"] = self.own["npo"].reference(forget)
        tokens = {"forget": self.mllm.answer_tokens(forget)}
        if method == "kl_minimization":
            retain = self.mllm.pack([self.retain])
            references["retain", "own"] = self.own["kl_minimization"].reference(retain)
            tokens["retain"] = self.mllm.answer_tokens(retain)
        loss = METHODS[method].loss(Batch(tokens, references))["loss"]
        loss.backward()
        return loss.item()

    def references(self) -> None:
        """Only the frozen model's part of a ViKeR step."""
        self.mllm.vision = self.vision
        self.ideal.reference(self.mllm.pack([self.forget]))

    def _packed_ideal(self) -> Reference:
        """Every irrelevant image read anew, with all questions behind it."""
        with self.mllm.frozen():
            batches = [self.mllm.pack([replace(self.forget, image=p)]) for p in self.irrelevant]
            p = mean_distribution(self.mllm.answer_tokens(b).logits for b in batches)
            return reduce_distribution(p, batches[0].labels, output_weight(self.mllm.head))


def gradient(mllm: MLLM) -> torch.Tensor:
    """All gradients in one vector; they are dropped."""
    found = torch.cat([p.grad.flatten() for p in mllm.parameters() if p.grad is not None])
    mllm.zero_grad()
    return found
