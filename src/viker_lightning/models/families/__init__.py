"""One file per model family: template, where the image goes, features, the language model's module path."""

from types import ModuleType
from typing import Any

from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from viker_lightning.errors import UserError

from . import fast_vlm, idefics2, idefics3, internvl, llava, llava_next, other, qwen3_vl, qwen_vl

FAMILIES = (llava, llava_next, fast_vlm, qwen_vl, qwen3_vl, idefics2, idefics3, internvl)


def family_of(architecture: str) -> tuple[ModuleType, Any]:
    """The family file of a model architecture, and the class that loads it.

    Raises:
        UserError: if transformers does not know it as a model of images and text.
    """
    for family in FAMILIES:
        for model_class in family.MODEL_CLASSES:
            if model_class.__name__ == architecture:
                return family, model_class
    if architecture in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        return other, AutoModelForImageTextToText
    supported = ", ".join(c.__name__ for family in FAMILIES for c in family.MODEL_CLASSES)
    raise UserError(
        f"model architecture {architecture!r} is not supported; supported: {supported}, and what transformers loads as "
        "AutoModelForImageTextToText"
    )
