"""Qwen2-VL and Qwen2.5-VL: image size decides the number of tokens, positions count time, height and width (M-RoPE).

Source: transformers ``Qwen2VLForConditionalGeneration`` and ``Qwen2_5_VLForConditionalGeneration``; prompt as the
chat template of the published instruct models with one user turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from viker_lightning.data.encoding import Template

from .common import encoded, image_text, language_model

__all__ = ["encoded", "image_text", "language_model"]

MODEL_CLASSES = (Qwen2VLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"

TEMPLATE = Template(
    image_prefix=_SYSTEM + "<|vision_start|><|image_pad|><|vision_end|>",
    text_prefix=_SYSTEM,
    question="{question}<|im_end|>\n<|im_start|>assistant\n",
    text_question="{question}<|im_end|>\n<|im_start|>assistant\n",
    answer="{answer}",
    image_token="<|image_pad|>",
)


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return TEMPLATE


def tower(model: Any) -> nn.Module:
    """What sees the image and is never trained; the merger is part of it."""
    return model.model.visual


def projector(model: Any) -> nn.Module | None:
    """There is none apart from the tower."""
    return None


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Rows and columns of merged patches of an image of ``size`` (width, height)."""
    images = processor.image_processor
    side = images.patch_size * images.merge_size
    height, width = smart_resize(size[1], size[0], side, images.size["shortest_edge"], images.size["longest_edge"])
    return height // side, width // side


def natural_side(processor: Any) -> int:
    """Side in pixels at which a square picture is seen: the most the processor allows, but no more than 448."""
    return min(448, math.isqrt(processor.image_processor.size["longest_edge"]))


def pixels_and_grid(model: Any, processor: Any, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
    """Patches of images as the tower takes them, and how many each has in time, height and width."""
    inputs = processor.image_processor(images=list(images), return_tensors="pt")
    return inputs["pixel_values"].to(model.device, model.dtype), inputs["image_grid_thw"].to(model.device)


def plain_inputs(model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs besides ids and mask."""
    pixels, grid = pixels_and_grid(model, processor, images)
    kinds = (input_ids == model.config.image_token_id).int()
    return {"pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": kinds}


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Token embeddings of images, ``[h * w, d]`` each."""
    pixels, grid = pixels_and_grid(model, processor, images)
    return list(model.model.get_image_features(pixels, grid, return_dict=True).pooler_output)


def project(model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Nothing is left to do."""
    return list(features)


def position_ids(positions: Tensor, shapes: Sequence[tuple[int, ...] | None], start: int) -> Tensor:
    """Positions as the model counts them: an image of h x w tokens takes max(h, w) steps.

    Args:
        positions: ``[B, T]`` counted in tokens.
        shapes: ``(h, w)`` of each row's image, or ``None``.
        start: column of the first image position.

    Returns:
        ``[3, B, T]``: time, height, width.
    """
    sides = torch.tensor([shape or (0, 1) for shape in shapes], device=positions.device)
    height, width = sides[:, :1], sides[:, 1:]
    inside = positions - start
    behind = inside >= height * width
    shift = torch.where(height > 0, height * width - torch.maximum(height, width), 0)
    text = torch.where(behind, positions - shift, positions)
    image = (inside >= 0) & ~behind
    grid = (torch.zeros_like(inside), inside // width, inside % width)
    return torch.stack([torch.where(image, start + axis, text) for axis in grid])
