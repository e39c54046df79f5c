"""Whatever else transformers' AutoModelForImageTextToText loads: found out from the model, one sequence a question.

Nothing is known here of how such a model places its image or counts positions, so questions do not share their image:
the processor writes the prompt and transformers' own forward reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn

from viker_lightning.data.encoding import Encoder, Template
from viker_lightning.errors import UserError

from .common import chat_template

TOKEN_KINDS = ("token_type_ids", "mm_token_type_ids")
"""What processors call the marks of image tokens."""


def template(processor: Any) -> Template:
    """The text around image, question and answer."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise UserError(f"{type(processor).__name__}: a processor with a tokenizer is needed; this model has none")
    named = [getattr(owner, "image_token", None) for owner in (processor, tokenizer)]
    return chat_template(processor, *dict.fromkeys(token for token in named if isinstance(token, str)))


def language_model(model: Any) -> nn.Module:
    """What reads tokens.

    Raises:
        UserError: if it cannot be told from the rest of the model.
    """
    inner, found = getattr(model, "model", None), model.get_decoder()
    if model.config.is_encoder_decoder or inner is None or found is model or found is inner:
        raise UserError(f"{type(model).__name__}: no causal language model can be told apart in it; it is {_FILE}")
    return found


def tower(model: Any) -> nn.Module:
    """What sees the image and is never trained.

    Raises:
        UserError: if it cannot be told from the rest of the model.
    """
    found = model.get_encoder(modality="image")
    if found is model or found is model.model:
        raise UserError(f"{type(model).__name__}: no vision tower can be told apart in it; it is {_FILE}")
    return found


_FILE = "not supported without a file of its own in viker_lightning/models/families"


def projector(model: Any) -> nn.Module | None:
    """Nothing is kept of images, so it need not be known."""
    return None


def natural_side(processor: Any) -> int:
    """Side in pixels of a square picture: what the processor resizes to, but no more than 448."""
    size = dict(getattr(processor.image_processor, "size", None) or {})
    sides = [size[name] for name in ("height", "shortest_edge", "longest_edge") if size.get(name)]
    return min(448, int(sides[0])) if sides else 336


def prefix(processor: Any, encoder: Encoder, image: Image) -> list[int]:
    """Ids before every question about an image, as the processor writes them.

    Raises:
        UserError: if the question does not follow them as it does in a text by itself.
    """
    asked = encoder.question("What is it?", True).prompt
    text = encoder.template.image_prefix + encoder.template.question.format(question="What is it?")
    ids = list(processor(text=[text], images=[[image]])["input_ids"][0])
    if tuple(ids[-len(asked) :]) != asked:
        raise UserError(
            f"{type(processor).__name__}: it writes a question behind an image otherwise than alone; {_FILE}"
        )
    return ids[: -len(asked)]


def plain_inputs(model: Any, processor: Any, images: Sequence[Image], input_ids: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs besides ids and mask."""
    text = [template(processor).image_prefix] * len(images)
    found = processor(text=text, images=[[image] for image in images], padding=True, return_tensors="pt")
    inputs = {k: v for k, v in found.to(input_ids.device).items() if k not in ("input_ids", "attention_mask")}
    kinds = (input_ids == model.config.image_token_id).int()
    return {
        name: kinds if name in TOKEN_KINDS else value.to(model.dtype) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
