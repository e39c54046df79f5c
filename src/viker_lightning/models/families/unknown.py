"""Whatever else transformers' AutoModelForImageTextToText loads: found out from the model, one sequence a question.

Nothing is known here of how such a model places its image or counts positions, so questions do not share their image:
the processor writes the prompt and transformers' own forward reads it.
"""

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from typing_extensions import override

from viker_lightning.data.encoding import Encoder, Template
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError

from .base import OWN_FAMILY, Family, chat_template

TOKEN_KINDS = ("token_type_ids", "mm_token_type_ids")
"""What processors call the marks of image tokens."""

_UNSUPPORTED = f"not supported without {OWN_FAMILY}"


class Unknown(Family):
    """A model of no known family."""

    packs = False

    @override
    def model_class(self, architecture: str) -> Any | None:
        known = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
        return AutoModelForImageTextToText if architecture in known else None

    @override
    def template(self, processor: Any) -> Template:
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None:
            raise UserError(f"{type(processor).__name__}: a processor with a tokenizer is needed; this model has none")
        named = [getattr(owner, "image_token", None) for owner in (processor, tokenizer)]
        return chat_template(processor, *dict.fromkeys(token for token in named if isinstance(token, str)))

    @override
    def language_model(self, model: Any) -> nn.Module:
        inner, decoder = getattr(model, "model", None), model.get_decoder()
        if model.config.is_encoder_decoder or inner is None or decoder is model or decoder is inner:
            raise UserError(
                f"{type(model).__name__}: no causal language model can be found in it; it is {_UNSUPPORTED}"
            )
        return decoder

    @override
    def tower(self, model: Any) -> nn.Module:
        encoder = model.get_encoder(modality="image")
        if encoder is model or encoder is model.model:
            raise UserError(f"{type(model).__name__}: no vision tower can be found in it; it is {_UNSUPPORTED}")
        return encoder

    @override
    def natural_side(self, processor: Any) -> int:
        """What the processor resizes to, but no more than 448."""
        size = dict(getattr(processor.image_processor, "size", None) or {})
        sides = [size[name] for name in ("height", "shortest_edge", "longest_edge") if size.get(name)]
        return min(448, int(sides[0])) if sides else 336

    @override
    def prefix(self, model: Any, processor: Any, encoder: Encoder, picture: Picture) -> list[int]:
        """As the processor writes them; an error if the question does not follow them as it does in a text alone."""
        question = encoder.question("What is it?", True).prompt
        text = encoder.template.image_prefix + encoder.template.question.format(question="What is it?")
        ids = list(processor(text=[text], images=[[picture.open()]])["input_ids"][0])
        if tuple(ids[-len(question) :]) != question:
            raise UserError(
                f"{type(processor).__name__}: it writes a question behind an image otherwise than alone; it is "
                f"{_UNSUPPORTED}"
            )
        return ids[: -len(question)]

    @override
    def plain_inputs(self, model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
        text = [self.template(processor).image_prefix] * len(images)
        read = processor(text=text, images=[[image] for image in images], padding=True, return_tensors="pt")
        inputs = {k: v for k, v in read.to(input_ids.device).items() if k not in ("input_ids", "attention_mask")}
        kinds = (input_ids == model.config.image_token_id).int()
        return {
            name: kinds if name in TOKEN_KINDS else value.to(model.dtype) if value.is_floating_point() else value
            for name, value in inputs.items()
        }
