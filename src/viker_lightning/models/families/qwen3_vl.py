"""Qwen3-VL: as its elders, and what early layers of the tower saw is added to early layers of the language model.

Source: transformers ``Qwen3VLForConditionalGeneration``; prompt as the processor's chat template has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from viker_lightning.data.encoding import Template

from .common import chat_template, image_text, language_model
from .qwen_vl import image_shape, natural_side, pixels_and_grid, plain_inputs, position_ids, project, projector, tower

__all__ = [
    "image_shape", "image_text", "language_model", "natural_side", "plain_inputs", "position_ids", "project",
    "projector", "tower",
]  # fmt: skip

MODEL_CLASSES = (Qwen3VLForConditionalGeneration,)


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return chat_template(processor, "<|image_pad|>")


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """What the language model is given of images, ``[h * w, d]`` each of the token embeddings and of every early layer.

    Returns:
        ``[h * w, 1 + layers, d]`` per image.
    """
    pixels, grid = pixels_and_grid(model, processor, images)
    seen = model.model.get_image_features(pixels, grid, return_dict=True)
    layers = zip(seen.pooler_output, *seen.deepstack_features, strict=True)
    return [torch.stack(list(image), dim=1) for image in layers]


def encoded(images: Sequence[Tensor]) -> Any:
    """Features ``[P, 1 + layers, d]`` of images as transformers' forward takes them in place of pixels."""
    layers = [list(layer) for layer in zip(*(image.unbind(1) for image in images), strict=True)]
    return BaseModelOutputWithDeepstackFeatures(pooler_output=layers[0], deepstack_features=layers[1:])  # type: ignore[arg-type]
