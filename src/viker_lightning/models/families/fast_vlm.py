"""FastVLM: LLaVA with a convolutional tower from timm, whose grid of features is read row by row.

Source: transformers ``FastVlmForConditionalGeneration`` (arXiv 2412.13303); prompt as the processor's chat template has
it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import FastVlmForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from typing_extensions import override

from .base import Family
from .llava import Llava


class FastVLM(Llava):
    """LLaVA with another tower."""

    model_classes = (FastVlmForConditionalGeneration,)
    image_labels = False  # never tried
    template = Family.template

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Rows and columns of features, whatever the size."""
        images = processor.image_processor
        side = images.crop_size if images.do_center_crop else images.size
        return side["height"] // processor.patch_size, side["width"] // processor.patch_size

    @override
    def pixel_features(self, model: Any, pixels: Tensor) -> Tensor:
        grid: Tensor = self.tower(model)(pixels, do_pooling=False).last_hidden_state
        return grid.flatten(2).permute(0, 2, 1)

    @override
    def encoded(self, images: Sequence[Tensor]) -> Any:
        return BaseModelOutputWithPooling(pooler_output=torch.stack(list(images)))
