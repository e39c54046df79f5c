"""InternVL, as converted for transformers: the image in tiles and, if there are several, a view of the whole.

Source: transformers ``InternVLForConditionalGeneration``; prompt as the processor's chat template has it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from typing_extensions import override

from .base import Family


class InternVL(Family):
    """InternVL, whose vision features are those of tiles, shuffled into fewer tokens."""

    model_classes = (InternVLForConditionalGeneration,)

    @override
    def projector(self, model: Any) -> nn.Module | None:
        return model.model.multi_modal_projector

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Tiles of an image, and positions of one."""
        settings = processor._merge_kwargs()["images_kwargs"]
        tiles = processor.image_processor.get_number_of_image_patches(size[1], size[0], settings)
        return tiles, processor.image_seq_length

    @override
    def image_text(self, placeholder: str, shape: tuple[int, ...]) -> str:
        return f"<img>{super().image_text(placeholder, shape)}</img>"

    @override
    def natural_side(self, processor: Any) -> int:
        """That of one tile."""
        return int(processor.image_processor.size["height"])

    @override
    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels(model, processor, images)}

    def pixels(self, model: Any, processor: Any, images: Sequence[Image]) -> Tensor:
        """Tiles of images, ``[tiles, 3, H, W]``."""
        settings = processor._merge_kwargs()["images_kwargs"] | {"return_tensors": "pt"}
        return processor.image_processor(images=list(images), **settings)["pixel_values"].to(model.device, model.dtype)

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """``[tiles * P, 4 * d_vision]`` per image."""
        return [self.tile_features(model, self.pixels(model, processor, [image])) for image in images]

    def tile_features(self, model: Any, pixels: Tensor) -> Tensor:
        """Vision features of tiles, four patches each beside one another."""
        layer, config = model.config.vision_feature_layer, model.config
        seen = self.tower(model)(pixel_values=pixels, output_hidden_states=layer != -1, return_dict=True)
        features = seen.last_hidden_state if layer == -1 else seen.hidden_states[layer]
        if config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        side = int(features.shape[1] ** 0.5)
        squares = features.reshape(len(features), side, side, -1)
        return model.model.pixel_shuffle(squares, scale_factor=config.downsample_ratio).flatten(0, 2)

    @override
    def project(self, model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        return [model.model.multi_modal_projector(f) for f in features]

    @override
    def encoded(self, images: Sequence[Tensor]) -> Any:
        return BaseModelOutputWithPooling(pooler_output=torch.cat(list(images)))
