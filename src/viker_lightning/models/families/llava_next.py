"""LLaVA-NeXT (1.6): a small view of the image, then the image in tiles with a mark at every line's end.

Source: transformers ``LlavaNextForConditionalGeneration``; checkpoints differ in their prompt: the processor has it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration
from typing_extensions import override

from .base import Family
from .llava import Llava


class LlavaNext(Llava):
    """LLaVA with tiles."""

    model_classes = (LlavaNextForConditionalGeneration,)
    image_labels = False
    template = Family.template

    @override
    def projector(self, model: Any) -> nn.Module | None:
        """The mark at line ends included."""
        parts = nn.Module()
        parts.projector = model.model.multi_modal_projector
        parts.image_newline = model.model.image_newline
        return parts

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        return (int(processor._get_num_multimodal_tokens(image_sizes=[size[::-1]]).num_image_tokens[0]),)

    @override
    def natural_side(self, processor: Any) -> int:
        """That of the largest square of tiles."""
        return max(min(sides) for sides in processor.image_processor.image_grid_pinpoints)

    @override
    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        inputs = processor.image_processor(images=list(images), return_tensors="pt")
        pixels = inputs["pixel_values"].to(input_ids.device, model.dtype)
        return {"pixel_values": pixels, "image_sizes": inputs["image_sizes"].to(input_ids.device)}

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """``[tiles, P, d_vision]`` per image."""
        pixels = (processor.image_processor(images=[image], return_tensors="pt")["pixel_values"][0] for image in images)
        return [self.pixel_features(model, p.to(model.device, model.dtype)) for p in pixels]

    @override
    def project(self, model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        inner = model.model
        tiles = [inner.multi_modal_projector(f) for f in features]
        heights = torch.tensor([size[::-1] for size in sizes])
        strategy = model.config.vision_feature_select_strategy
        return list(inner.pack_image_features(tiles, heights, strategy, inner.image_newline)[0])
