"""LLaVA-1.5: one image, then text; causal attention throughout, so questions can share the image.

Source: transformers ``LlavaForConditionalGeneration``; prompt as MLLMU-Bench trains it
(franciscoliu/MLLMU-Bench data_process/data_preprocess.py L355).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from viker_lightning.data.encoding import Template

from .common import encoded, image_text, language_model, position_ids

__all__ = ["encoded", "image_text", "language_model", "position_ids"]

MODEL_CLASSES = (LlavaForConditionalGeneration,)

TEMPLATE = Template(
    image_prefix="USER: <image>",
    text_prefix="USER:",
    question="\n{question}\nASSISTANT:",
    text_question=" {question}\nASSISTANT:",
    answer=" {answer}",
    image_token="<image>",
)


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return TEMPLATE


def tower(model: Any) -> nn.Module:
    """What sees the image and is never trained."""
    return model.model.vision_tower


def projector(model: Any) -> nn.Module | None:
    """What turns tower features into token embeddings."""
    return model.model.multi_modal_projector


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Positions one image takes, whatever its size: patches, plus the class token if the model keeps it."""
    patches = (model.config.vision_config.image_size // model.config.vision_config.patch_size) ** 2
    return (patches + (model.config.vision_feature_select_strategy == "full"),)


def natural_side(processor: Any) -> int:
    """Side in pixels at which a square picture is seen."""
    size = processor.image_processor.size
    return int(size.get("height") or size["shortest_edge"])


def plain_inputs(model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs besides ids and mask."""
    pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixels.to(input_ids.device, model.dtype)}


def pixel_features(model: Any, pixels: Tensor) -> Tensor:
    """Vision features ``[n, P, d_vision]`` of ``[n, 3, H, W]`` pixels, before the projector."""
    config = model.config
    states = tower(model)(pixels, output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    features = torch.cat([states[i] for i in ([layers] if isinstance(layers, int) else layers)], dim=-1)
    return features[:, 1:] if config.vision_feature_select_strategy == "default" else features


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Vision features before the projector.

    Returns:
        ``[P, d_vision]`` per image; a constant of the image as long as the tower is frozen.
    """
    pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    return list(pixel_features(model, pixels.to(model.device, model.dtype)))


def project(model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Token embeddings ``[P, d]`` of images from their tower features and their sizes in pixels."""
    return list(model.model.multi_modal_projector(torch.stack(list(features))))
