"""Choosing the irrelevant images of a run, away from the forget images if a model for that is given."""

from collections.abc import Sequence
from pathlib import Path

import torch

from viker_lightning.data.pictures.clip import ClipEmbedder, FarFrom
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Person, Picture
from viker_lightning.models import identify_weights


def choose_pictures(
    images: str, k: int, seed: int, size: int, people: Sequence[Picture], keep: FarFrom | None, file: Path | None
) -> list[Picture]:
    """Draws irrelevant images as :func:`~viker_lightning.data.pictures.irrelevant.irrelevant_images` does.

    ``file`` is where to write how similar the candidates are to forget images, also if too few may be used.
    """
    try:
        return irrelevant_images(images, k, seed, size, people, keep)
    finally:
        if keep is not None and keep.matches and file is not None:
            keep.save(file)


def clip_filter(
    clip: str, threshold: float, forget: Sequence[Picture], device: torch.device
) -> tuple[FarFrom, dict[str, str | None]]:
    """A filter that keeps images away from forget images, and which weights look at them.

    Args:
        clip: as :meth:`~viker_lightning.data.pictures.clip.ClipEmbedder.named` takes it.
        threshold: largest similarity to a forget image, -1 to 1.
        forget: these images.
        device: where the model is.
    """
    embed = ClipEmbedder.named(clip, device)
    return FarFrom(forget, embed, threshold), identify_weights(clip, embed.files)


def pictures_of(people: Sequence[Person]) -> list[Picture]:
    """Everybody's pictures, each once."""
    return list({picture.key: picture for person in people for picture in person.images}.values())
