"""InternVL, as converted for transformers: the image in tiles and, if there are several, a view of the whole.

Source: transformers ``InternVLForConditionalGeneration``; prompt as the processor's chat template has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import InternVLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from viker_lightning.data.encoding import Template

from .common import chat_template, language_model, position_ids
from .llava import projector, tower

__all__ = ["language_model", "position_ids", "projector", "tower"]

MODEL_CLASSES = (InternVLForConditionalGeneration,)


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    return chat_template(processor, processor.image_token)


def image_shape(model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Tiles of an image of ``size`` (width, height), and positions of one."""
    settings = processor._merge_kwargs()["images_kwargs"]
    tiles = processor.image_processor.get_number_of_image_patches(size[1], size[0], settings)
    return tiles, processor.image_seq_length


def image_text(placeholder: str, shape: tuple[int, ...]) -> str:
    """What the processor writes for one image."""
    return f"<img>{placeholder * shape[0] * shape[1]}</img>"


def natural_side(processor: Any) -> int:
    """Side in pixels of a square picture that is seen as one tile."""
    return int(processor.image_processor.size["height"])


def _pixels(model: Any, processor: Any, images: Sequence[Image]) -> Tensor:
    settings = processor._merge_kwargs()["images_kwargs"] | {"return_tensors": "pt"}
    return processor.image_processor(images=list(images), **settings)["pixel_values"].to(model.device, model.dtype)


def plain_inputs(model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs besides ids and mask."""
    return {"pixel_values": _pixels(model, processor, images)}


def tower_features(model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
    """Vision features before the projector, ``[tiles * P, 4 * d_vision]`` per image."""
    return [_tile_features(model, _pixels(model, processor, [image])) for image in images]


def _tile_features(model: Any, pixels: Tensor) -> Tensor:
    layer, config = model.config.vision_feature_layer, model.config
    seen = tower(model)(pixel_values=pixels, output_hidden_states=layer != -1, return_dict=True)
    features = seen.last_hidden_state if layer == -1 else seen.hidden_states[layer]
    if config.vision_feature_select_strategy == "default":
        features = features[:, 1:]
    side = int(features.shape[1] ** 0.5)
    squares = features.reshape(len(features), side, side, -1)
    return model.model.pixel_shuffle(squares, scale_factor=config.downsample_ratio).flatten(0, 2)


def project(model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Token embeddings ``[P, d]`` of images from their tower features and their sizes in pixels."""
    return [model.model.multi_modal_projector(f) for f in features]


def encoded(images: Sequence[Tensor]) -> Any:
    """Token embeddings of images as transformers' forward takes them in place of pixels."""
    return BaseModelOutputWithPooling(pooler_output=torch.cat(list(images)))
