"""The table of embedded models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import llava, smol, vision_tower, wider
from .base_model import base_model, recipe


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that needs no hub.

    Attributes:
        made_of: identifies what it is made of; a vanilla model is made again where that is another.
        build: the folder of the model, which is built on first use, from all training text of a benchmark.
        sizes: a folder with its sizes, whether or not it is built; it may not be there yet.
        needs_people: whether it has met none of those asked about, so that data without people are an error.
    """

    made_of: Callable[[], str]
    build: Callable[[Callable[[], Sequence[str]]], Path]
    sizes: Callable[[], Path]
    needs_people: bool = False


EMBEDDED_MODELS = {
    "mini": EmbeddedModel(lambda: recipe()["sha256"], lambda texts: base_model(), base_model, needs_people=True),
    "untrained": EmbeddedModel(
        lambda: f"{llava.VERSION}/{vision_tower.fingerprint()}/{llava.LANGUAGE_MODEL}",
        lambda texts: llava.untrained_model(texts()),
        base_model,  # the packaged one began as it
    ),
    "smol": EmbeddedModel(lambda: smol.VERSION, lambda texts: smol.smol_model(), smol.model_folder),
    "wider": EmbeddedModel(wider.fingerprint, lambda texts: wider.wider_model(), wider.model_folder, needs_people=True),
}
"""By the names that ``model.base`` takes."""
