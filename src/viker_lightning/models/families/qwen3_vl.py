"""Qwen3-VL: as Qwen2-VL, and what early layers of the tower saw is added to early layers of the language model.

Source: transformers ``Qwen3VLForConditionalGeneration``; prompt as the processor's chat template has it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from typing_extensions import override

from .base import Family
from .qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """Qwen-VL with features of several depths."""

    model_classes = (Qwen3VLForConditionalGeneration,)
    template = Family.template

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """Token embeddings, and what is added in every early layer: ``[h * w, 1 + layers, d]`` per image."""
        pixels, grid = self.pixels_and_grid(model, processor, images)
        seen = model.model.get_image_features(pixels, grid, return_dict=True)
        layers = zip(seen.pooler_output, *seen.deepstack_features, strict=True)
        return [torch.stack(list(image), dim=1) for image in layers]

    @override
    def encoded(self, images: Sequence[Tensor]) -> Any:
        layers = [list(layer) for layer in zip(*(image.unbind(1) for image in images), strict=True)]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=layers[0], deepstack_features=layers[1:])  # type: ignore[arg-type]
