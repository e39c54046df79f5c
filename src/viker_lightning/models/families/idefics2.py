"""Idefics2: an image of any shape becomes 64 tokens, or five times that where it is also cut in four.

Source: transformers ``Idefics2ForConditionalGeneration``; prompt as the processor's chat template has it. The connector
needs to know which patches are padding, so it is run, and frozen, together with the tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn
from transformers import Idefics2ForConditionalGeneration

from viker_lightning.data.encoding import Template

from .common import chat_template, encoded, position_ids
from .common import text_model as language_model
from .idefics3 import plain_inputs

__all__ = ["encoded", "language_model", "plain_inputs", "position_ids"]

MODEL_CLASSES = (Idefics2ForConditionalGeneration,)

_MARK = "<fake_token_around_image>"


def template(processor: Any) -> Template:
    """The text around image, question and answer; the processor sets a blank behind the image."""
    found = chat_template(processor, "<image>")
    return replace(found, question=" " + found.question.lstrip())


def tower(model: Any) -> nn.Module:
    """What sees the image and is never trained, the connector included."""
    return nn.ModuleList([model.model.vision_model, model.model.connector])


def projector(model: Any) -> nn.Module | None:
    """There is none apart from the tower."""
    return None


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Views of an image, and positions of one."""
    return 5 if processor.image_processor.do_image_splitting else 1, processor.image_seq_len


def image_text(placeholder: str, shape: tuple[int, ...]) -> str:
    """What the processor writes for one image."""
    views, positions = shape
    return (_MARK + placeholder * positions) * views + _MARK


def natural_side(processor: Any) -> int:
    """Side in pixels below which a square picture is enlarged."""
    return int(processor.image_processor.size["shortest_edge"])


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Token embeddings of images, ``[P, d]`` each."""
    inputs = (processor.image_processor(images=[[image]], return_tensors="pt").to(model.device) for image in images)
    return [
        model.model.get_image_features(i["pixel_values"], i["pixel_attention_mask"], return_dict=True).pooler_output[0]
        for i in inputs
    ]


def project(model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Nothing is left to do."""
    return list(features)
