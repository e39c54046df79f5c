"""One file a family of models: how it writes a prompt and sees an image."""

import pkgutil
from typing import Any

from viker_lightning.errors import UserError

from .base import Family, chat_template
from .fast_vlm import FastVLM
from .idefics2 import Idefics2
from .idefics3 import Idefics3
from .internvl import InternVL
from .llava import Llava
from .llava_next import LlavaNext
from .qwen3_vl import Qwen3VL
from .qwen_vl import QwenVL
from .unknown import Unknown

FAMILIES: tuple[Family, ...] = (
    Llava(),
    LlavaNext(),
    FastVLM(),
    QwenVL(),
    Qwen3VL(),
    Idefics2(),
    Idefics3(),
    InternVL(),
)


def choose_family(architecture: str, family: Family | None = None) -> tuple[Family, Any]:
    """The family of a model architecture, and the class that loads it.

    Args:
        architecture: name of a class, as ``config.json`` has it.
        family: the only one that may be chosen; by default the first of :data:`FAMILIES` that knows the architecture,
            and for the others transformers knows as models of images and text :class:`Unknown`.

    Raises:
        UserError: if there is none.
    """
    for candidate in [family] if family else [*FAMILIES, Unknown()]:
        if model_class := candidate.model_class(architecture):
            return candidate, model_class
    if family:
        names = ", ".join(c.__name__ for c in family.model_classes)
        raise UserError(f"model.family: {type(family).__name__} is for {names or 'nothing'}, not for {architecture!r}")
    supported = ", ".join(c.__name__ for known in FAMILIES for c in known.model_classes)
    raise UserError(
        f"model architecture {architecture!r} is not supported; supported: {supported}, what transformers loads as "
        "AutoModelForImageTextToText, and what a family of your own describes (model.family, docs/model.md)"
    )


def import_family(path: str | None) -> Family | None:
    """A family by its class path, e.g. ``mine.MyFamily``; ``None`` for none."""
    if not path:
        return None
    try:
        kind = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"family: {path!r} cannot be imported ({error}); give the path of a class") from error
    if not (isinstance(kind, type) and issubclass(kind, Family)):
        raise UserError(f"family: {path!r} is no subclass of viker_lightning.models.families.Family")
    return kind()
