"""LLaVA-NeXT (1.6): a small view of the image, then the image in tiles with a mark at every line's end.

Source: transformers ``LlavaNextForConditionalGeneration``; checkpoints differ in their prompt: the processor has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration

from viker_lightning.data.encoding import Template

from .common import chat_template, encoded, image_text, language_model, position_ids
from .llava import pixel_features, tower

__all__ = ["encoded", "image_text", "language_model", "position_ids", "tower"]

MODEL_CLASSES = (LlavaNextForConditionalGeneration,)


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return chat_template(processor, "<image>")


def projector(model: Any) -> nn.Module | None:
    """What turns tower features into token embeddings, the mark at line ends included."""
    parts = nn.Module()
    parts.projector = model.model.multi_modal_projector
    parts.image_newline = model.model.image_newline
    return parts


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Positions an image of ``size`` (width, height) takes."""
    return (int(processor._get_num_multimodal_tokens(image_sizes=[size[::-1]]).num_image_tokens[0]),)


def natural_side(processor: Any) -> int:
    """Side in pixels at which a square picture is seen: that of the largest square of tiles."""
    return max(min(sides) for sides in processor.image_processor.image_grid_pinpoints)


def plain_inputs(model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs besides ids and mask."""
    inputs = processor.image_processor(images=list(images), return_tensors="pt")
    pixels = inputs["pixel_values"].to(input_ids.device, model.dtype)
    return {"pixel_values": pixels, "image_sizes": inputs["image_sizes"].to(input_ids.device)}


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Vision features before the projector, ``[tiles, P, d_vision]`` per image."""
    pixels = (processor.image_processor(images=[image], return_tensors="pt")["pixel_values"][0] for image in images)
    return [pixel_features(model, p.to(model.device, model.dtype)) for p in pixels]


def project(model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Token embeddings ``[P, d]`` of images from their tower features and their sizes in pixels."""
    inner = model.model
    tiles = [inner.multi_modal_projector(f) for f in features]
    heights = torch.tensor([size[::-1] for size in sizes])
    strategy = model.config.vision_feature_select_strategy
    return list(inner.pack_image_features(tiles, heights, strategy, inner.image_newline)[0])
