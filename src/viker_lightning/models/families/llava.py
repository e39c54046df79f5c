"""LLaVA-1.5: one image, then text; causal attention throughout, so questions can share the image.

Source: transformers ``LlavaForConditionalGeneration``; prompt as MLLMU-Bench trains it
(franciscoliu/MLLMU-Bench data_process/data_preprocess.py L355).
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from typing_extensions import override

from viker_lightning.data.encoding import Template

from .base import Family

TEMPLATE = Template(
    image_prefix="USER: <image>",
    text_prefix="USER:",
    question="\n{question}\nASSISTANT:",
    text_question=" {question}\nASSISTANT:",
    answer=" {answer}",
    image_token="<image>",
)


class Llava(Family):
    """The simplest family, and the base of those that change a part of it."""

    model_classes: tuple[Any, ...] = (LlavaForConditionalGeneration,)
    image_labels = True

    @override
    def template(self, processor: Any) -> Template:
        return TEMPLATE

    @override
    def projector(self, model: Any) -> nn.Module | None:
        return model.model.multi_modal_projector

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Whatever the size: patches, plus the class token if the model keeps it."""
        patches = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
        return (patches + (model.config.vision_feature_select_strategy == "full"),)

    @override
    def natural_side(self, processor: Any) -> int:
        size = processor.image_processor.size
        return int(size.get("height") or size["shortest_edge"])

    @override
    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels.to(input_ids.device, model.dtype)}

    def pixel_features(self, model: Any, pixels: Tensor) -> Tensor:
        """Vision features ``[n, P, d_vision]`` of ``[n, 3, H, W]`` pixels, before the projector."""
        config = model.config
        states = self.tower(model)(pixels, output_hidden_states=True).hidden_states
        layers = config.vision_feature_layer
        features = torch.cat([states[i] for i in ([layers] if isinstance(layers, int) else layers)], dim=-1)
        return features[:, 1:] if config.vision_feature_select_strategy == "default" else features

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """``[P, d_vision]`` per image."""
        pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return list(self.pixel_features(model, pixels.to(model.device, model.dtype)))

    @override
    def project(self, model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        return list(model.model.multi_modal_projector(torch.stack(list(features))))
