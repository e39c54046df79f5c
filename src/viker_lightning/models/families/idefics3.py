"""Idefics3 and SmolVLM: the image in tiles, each named by row and column, and a small view of the whole behind them.

Source: transformers ``Idefics3ForConditionalGeneration`` and ``SmolVLMForConditionalGeneration``; prompt as the
processor's chat template has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

from viker_lightning.data.encoding import Template

from .common import chat_template, encoded, position_ids
from .common import text_model as language_model

__all__ = ["encoded", "language_model", "position_ids"]

MODEL_CLASSES = (Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration)

_MARK, _WHOLE = "<fake_token_around_image>", "<global-img>"


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return chat_template(processor, "<image>")


def tower(model: Any) -> nn.Module:
    """What sees the image and is never trained."""
    return model.model.vision_model


def projector(model: Any) -> nn.Module | None:
    """What turns tower features into token embeddings."""
    return model.model.connector


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Rows and columns of tiles of an image of ``size`` (width, height), 0 if uncut, and positions of a tile."""
    _, rows, columns = processor.image_processor.get_number_of_image_patches(size[1], size[0])
    return rows, columns, processor.image_seq_len


def image_text(placeholder: str, shape: tuple[int, ...]) -> str:
    """What the processor writes for one image of so many rows, columns and positions a tile."""
    rows, columns, positions = shape
    lines = (
        "".join(f"{_MARK}<row_{r}_col_{c}>{placeholder * positions}" for c in range(1, columns + 1)) + "\n"
        for r in range(1, rows + 1)
    )
    return "".join(lines) + ("\n" if rows else "") + f"{_MARK}{_WHOLE}{placeholder * positions}{_MARK}"


def natural_side(processor: Any) -> int:
    """Side in pixels of a square picture that fills a tile; all squares are then scaled alike."""
    return int(processor.image_processor.max_image_size["longest_edge"])


def plain_inputs(model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs besides ids and mask."""
    inputs = processor.image_processor(images=[[image] for image in images], return_tensors="pt")
    pixels, mask = inputs["pixel_values"], inputs["pixel_attention_mask"]
    return {
        "pixel_values": pixels.to(input_ids.device, model.dtype),
        "pixel_attention_mask": mask.to(input_ids.device),
    }


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Vision features before the connector, ``[tiles, P, d_vision]`` per image."""
    inputs = (processor.image_processor(images=[[image]], return_tensors="pt").to(model.device) for image in images)
    return [
        model.model.get_image_features(i["pixel_values"], i["pixel_attention_mask"], return_dict=True).last_hidden_state
        for i in inputs
    ]


def project(model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Token embeddings ``[P, d]`` of images from their tower features and their sizes in pixels."""
    return [model.model.connector(f).flatten(0, 1) for f in features]
