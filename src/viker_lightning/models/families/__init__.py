"""One file per model family: template, where the image goes, features, the language model's module path."""

from types import ModuleType

from viker_lightning.errors import UserError

from . import llava


def family_of(architecture: str) -> ModuleType:
    """The family file of a model architecture.

    Raises:
        UserError: if there is none.
    """
    for family in (llava,):
        if family.MODEL_CLASS.__name__ == architecture:
            return family
    raise UserError(
        f"model architecture {architecture!r} is not supported; supported: {llava.MODEL_CLASS.__name__} "
        "(a new family is one file in viker_lightning/models/families)"
    )
