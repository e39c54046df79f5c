"""Idefics2: an image of any shape becomes 64 tokens, or five times that where it is also cut in four.

Source: transformers ``Idefics2ForConditionalGeneration``; prompt as the processor's chat template has it. The connector
needs to know which patches are padding, so it is run, and frozen, together with the tower.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn
from transformers import Idefics2ForConditionalGeneration
from typing_extensions import override

from viker_lightning.data.encoding import Template

from .idefics3 import _MARK, Idefics3


class Idefics2(Idefics3):
    """Idefics2, whose pixels and masks are those of Idefics3."""

    model_classes = (Idefics2ForConditionalGeneration,)

    @override
    def template(self, processor: Any) -> Template:
        """The processor sets a blank behind the image."""
        template = super().template(processor)
        return replace(template, question=" " + template.question.lstrip())

    @override
    def tower(self, model: Any) -> nn.Module:
        """Vision model and connector: neither is trained, and what they give is a token embedding."""
        return nn.ModuleList([model.model.vision_model, model.model.connector])

    @override
    def projector(self, model: Any) -> nn.Module | None:
        return None

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Views of an image, and positions of one."""
        return 5 if processor.image_processor.do_image_splitting else 1, processor.image_seq_len

    @override
    def image_text(self, placeholder: str, shape: tuple[int, ...]) -> str:
        views, positions = shape
        return (_MARK + placeholder * positions) * views + _MARK

    @override
    def natural_side(self, processor: Any) -> int:
        """The one below which a square picture is enlarged."""
        return int(processor.image_processor.size["shortest_edge"])

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """Token embeddings, ``[P, d]`` per image."""
        return [output.pooler_output[0] for output in self.image_outputs(model, processor, images)]

    @override
    def project(self, model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        return list(features)
