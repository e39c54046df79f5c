"""Idefics3 and SmolVLM: the image in tiles, each named by row and column, and a small view of the whole behind them.

Source: transformers ``Idefics3ForConditionalGeneration`` and ``SmolVLMForConditionalGeneration``; prompt as the
processor's chat template has it.
"""

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration
from typing_extensions import override

from .base import Family

_MARK, _WHOLE = "<fake_token_around_image>", "<global-img>"


class Idefics3(Family):
    """Idefics3 and SmolVLM."""

    model_classes: tuple[Any, ...] = (Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration)

    @override
    def language_model(self, model: Any) -> nn.Module:
        return model.model.text_model

    @override
    def tower(self, model: Any) -> nn.Module:
        return model.model.vision_model

    @override
    def projector(self, model: Any) -> nn.Module | None:
        return model.model.connector

    @override
    def image_shape(self, model: Any, processor: Any, size: tuple[int, int]) -> tuple[int, ...]:
        """Rows and columns of tiles, 0 if uncut, and positions of a tile."""
        _, rows, columns = processor.image_processor.get_number_of_image_patches(size[1], size[0])
        return rows, columns, processor.image_seq_len

    @override
    def image_text(self, placeholder: str, shape: tuple[int, ...]) -> str:
        rows, columns, positions = shape
        lines = (
            "".join(f"{_MARK}<row_{r}_col_{c}>{placeholder * positions}" for c in range(1, columns + 1)) + "\n"
            for r in range(1, rows + 1)
        )
        return "".join(lines) + ("\n" if rows else "") + f"{_MARK}{_WHOLE}{placeholder * positions}{_MARK}"

    @override
    def natural_side(self, processor: Any) -> int:
        """That of a tile; all squares are scaled alike."""
        return int(processor.image_processor.max_image_size["longest_edge"])

    @override
    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        inputs = processor.image_processor(images=[[image] for image in images], return_tensors="pt")
        pixels, mask = inputs["pixel_values"], inputs["pixel_attention_mask"]
        return {
            "pixel_values": pixels.to(input_ids.device, model.dtype),
            "pixel_attention_mask": mask.to(input_ids.device),
        }

    def image_outputs(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Any]:
        """What transformers says of every image, seen by itself."""
        inputs = (processor.image_processor(images=[[image]], return_tensors="pt").to(model.device) for image in images)
        return [
            model.model.get_image_features(i["pixel_values"], i["pixel_attention_mask"], return_dict=True)
            for i in inputs
        ]

    @override
    def tower_features(self, model: Any, processor: Any, images: Sequence[Image]) -> list[Tensor]:
        """``[tiles, P, d_vision]`` per image."""
        return [output.last_hidden_state for output in self.image_outputs(model, processor, images)]

    @override
    def project(self, model: Any, features: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        return [model.model.connector(f).flatten(0, 1) for f in features]
