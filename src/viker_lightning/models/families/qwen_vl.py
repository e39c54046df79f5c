"""Qwen2-VL and Qwen2.5-VL: image size decides the number of tokens, positions count time, height and width (M-RoPE).

Source: transformers ``Qwen2VLForConditionalGeneration`` and ``Qwen2_5_VLForConditionalGeneration``; prompt as the
chat template of the published instruct models with one user turn.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from typing_extensions import override

from viker_lightning.data.encoding import Template

from .base import Family

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"

TEMPLATE = Template(
    image_prefix=_SYSTEM + "<|vision_start|><|image_pad|><|vision_end|>",
    text_prefix=_SYSTEM,
    question="{question}<|im_end|>\n<|im_start|>assistant\n",
    text_question="{question}<|im_end|>\n<|im_start|>assistant\n",
    answer="{answer}",
    image_token="<|image_pad|>",
)


class QwenVL(Family):
    """Qwen2-VL and Qwen2.5-VL."""

    model_classes: tuple[Any, ...] = (Qwen2VLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)

    @override
    def template(self, processor: Any) -> Template:
        return TEMPLATE

    @override
    def tower(self, model: Any) -> nn.Module:
        """The merger is part of it."""
        return model.model.visual

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Rows and columns of merged patches."""
        images = processor.image_processor
        side = images.patch_size * images.merge_size
        height, width = smart_resize(size[1], size[0], side, images.size["shortest_edge"], images.size["longest_edge"])
        return height // side, width // side

    @override
    def natural_side(self, processor: Any) -> int:
        """The most the processor allows, but no more than 448."""
        return min(448, math.isqrt(processor.image_processor.size["longest_edge"]))

    def pixels_and_grid(self, model: Any, processor: Any, images: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """Patches of images as the tower takes them, and how many each has in time, height and width."""
        inputs = processor.image_processor(images=list(images), return_tensors="pt")
        return inputs["pixel_values"].to(model.device, model.dtype), inputs["image_grid_thw"].to(model.device)

    @override
    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        pixels, grid = self.pixels_and_grid(model, processor, images)
        kinds = (input_ids == model.config.image_token_id).int()
        return {"pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": kinds}

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """Token embeddings, ``[h * w, d]`` per image."""
        pixels, grid = self.pixels_and_grid(model, processor, images)
        return list(model.model.get_image_features(pixels, grid, return_dict=True).pooler_output)

    @override
    def position_ids(self, positions: Tensor, shapes: Sequence[tuple[int, ...] | None], start: int) -> Tensor:
        """``[3, B, T]``, time, height, width: an image of h x w tokens takes max(h, w) steps."""
        sides = torch.tensor([shape or (0, 1) for shape in shapes], device=positions.device)
        height, width = sides[:, :1], sides[:, 1:]
        inside = positions - start
        behind = inside >= height * width
        shift = torch.where(height > 0, height * width - torch.maximum(height, width), 0)
        text = torch.where(behind, positions - shift, positions)
        image = (inside >= 0) & ~behind
        grid = (torch.zeros_like(inside), inside // width, inside % width)
        return torch.stack([torch.where(image, start + axis, text) for axis in grid])
