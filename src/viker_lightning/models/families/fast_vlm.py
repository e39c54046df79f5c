"""FastVLM: LLaVA with a convolutional tower from timm, whose grid of features is read row by row.

Source: transformers ``FastVlmForConditionalGeneration`` (arXiv 2412.13303); prompt as the processor's chat template has
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import FastVlmForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from viker_lightning.data.encoding import Template

from .common import chat_template, image_text, language_model, position_ids
from .llava import natural_side, plain_inputs, project, projector, tower

__all__ = [
    "image_text",
    "language_model",
    "natural_side",
    "plain_inputs",
    "position_ids",
    "project",
    "projector",
    "tower",
]

MODEL_CLASSES = (FastVlmForConditionalGeneration,)


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return chat_template(processor, processor.image_token)


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Rows and columns of features of one image, whatever its size."""
    images = processor.image_processor
    side = images.crop_size if images.do_center_crop else images.size
    return side["height"] // processor.patch_size, side["width"] // processor.patch_size


def pixel_features(model: Any, pixels: Tensor) -> Tensor:
    """Vision features ``[n, P, d_vision]`` of ``[n, 3, H, W]`` pixels, before the projector."""
    grid: Tensor = tower(model)(pixels, do_pooling=False).last_hidden_state
    return grid.flatten(2).permute(0, 2, 1)


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Vision features before the projector.

    Returns:
        ``[P, d_vision]`` per image; a constant of the image as long as the tower is frozen.
    """
    pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    return list(pixel_features(model, pixels.to(model.device, model.dtype)))


def encoded(images: Sequence[Tensor]) -> Any:
    """Token embeddings of images as transformers' forward takes them in place of pixels."""
    return BaseModelOutputWithPooling(pooler_output=torch.stack(list(images)))
