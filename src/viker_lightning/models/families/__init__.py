"""One file per model family: template, where the image goes, features, the language model's module path."""

from types import ModuleType
from typing import Any

from viker_lightning.errors import UserError

from . import idefics2, idefics3, internvl, llava, llava_next, qwen3_vl, qwen_vl

FAMILIES = (llava, llava_next, qwen_vl, qwen3_vl, idefics2, idefics3, internvl)


def family_of(architecture: str) -> tuple[ModuleType, Any]:
    """The family file of a model architecture, and the model's class.

    Raises:
        UserError: if there is none.
    """
    for family in FAMILIES:
        for model_class in family.MODEL_CLASSES:
            if model_class.__name__ == architecture:
                return family, model_class
    supported = ", ".join(c.__name__ for family in FAMILIES for c in family.MODEL_CLASSES)
    raise UserError(
        f"model architecture {architecture!r} is not supported; supported: {supported} "
        "(a new family is one file in viker_lightning/models/families)"
    )
