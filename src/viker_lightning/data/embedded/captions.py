"""What a caption says of a portrait: the name, and what can be seen."""

from __future__ import annotations

from . import portraits

CAPTIONS = (
    "{name} stands before a {background} wall in {clothing} clothes, with {eyewear} and {beard}.",
    "{name} wears {clothing} clothes, {eyewear} and {beard}, and the wall behind is {background}.",
    "{name} is seen in {clothing} clothes, having {eyewear} and {beard}, with {background} all around.",
)
PARAPHRASE = "In front of a {background} wall we see {name}, who has {beard} and {eyewear} and wears {clothing}."


def caption(template: str, name: str, person: str, view: int) -> str:
    """A caption of :func:`~viker_lightning.data.embedded.portraits.draw_portrait`, under this name or another one."""
    return template.format(name=name, **portraits.describe_portrait(person, view))
