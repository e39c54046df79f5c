"""Pools of irrelevant images: pictures that show nothing of the people to be forgotten."""

from __future__ import annotations

import random
from pathlib import Path

from . import scenes
from .parquet import DataError
from .portraits import random_portrait
from .records import Picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

DRAWN = {
    "scenes": scenes.scene,
    "pets": scenes.pet,
    "people": random_portrait,
}
"""Kinds that are drawn on the spot; ``people`` are strangers, nobody in any benchmark."""


def irrelevant_images(images: str, k: int, seed: int = 0, size: int = 336) -> list[Picture]:
    """Gives k irrelevant images.

    Args:
        images: ``scenes``, ``pets`` or ``people``, or a folder with pictures.
        k: how many.
        seed: of the choice.
        size: side in pixels of drawn images.

    Raises:
        DataError: if the folder does not exist, or holds fewer than k readable images.
    """
    rng = random.Random(f"irrelevant/{images}/{seed}")
    if images in DRAWN:
        return [Picture(DRAWN[images](rng, size)[0], f"{images} {i}") for i in range(k)]
    folder = Path(images)
    if not folder.is_dir():
        raise DataError(f"images: {images!r} is neither a folder nor one of {', '.join(DRAWN)}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < k:
        raise DataError(
            f"{folder}: found {len(files)} images ({', '.join(SUFFIXES)}), need k={k}; add images or lower k"
        )
    pictures = [Picture(path.read_bytes(), str(path)) for path in rng.sample(files, k)]
    for picture in pictures:
        picture.open()
    return pictures
