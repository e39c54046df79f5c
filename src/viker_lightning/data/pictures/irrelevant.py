"""Pools of irrelevant images: pictures that show nothing of the people to be forgotten."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from viker_lightning.data.embedded import scenes
from viker_lightning.data.embedded.portraits import draw_stranger
from viker_lightning.data.records import Picture
from viker_lightning.errors import DataError
from viker_lightning.storage.files import opened

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

DRAWN = {
    "scenes": scenes.draw_scene,
    "pets": scenes.draw_pet,
    "people": draw_stranger,
}
"""Kinds that are drawn on the spot; ``people`` are strangers, nobody in any benchmark."""

PHOTOS = (
    "brick.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "rocket.jpg",
)
"""Photos inside scikit-image that show no person; CC0, public domain or without known restrictions (its docstrings)."""

FROM_DATA = ("retain", "forget")
"""Kinds whose pictures the benchmark has: the caller passes them as ``people``."""

KINDS = (*DRAWN, "photos", *FROM_DATA)

_TRIES = 50
"""Candidates drawn for each image wanted before a filter counts as refusing everything."""

MOST = 1000
"""Most images of a run: the frozen model answers every forget question behind each of them."""

Keep = Callable[[Sequence[Picture]], Sequence[Picture]]


def irrelevant_images(
    images: str,
    k: int,
    seed: int = 0,
    size: int = 336,
    people: Sequence[Picture] = (),
    keep: Keep | None = None,
) -> list[Picture]:
    """Gives k irrelevant images.

    Args:
        images: ``scenes``, ``pets`` or ``people`` (drawn); ``photos`` (scikit-image's); ``retain`` or ``forget`` (the
            benchmark's own people, from ``people``); or a folder with pictures.
        k: how many.
        seed: of the choice.
        size: side in pixels of drawn images.
        people: for ``retain`` and ``forget``, the pictures of these people. A forget person's own picture is not
            irrelevant to questions about them: leave it out if that matters.
        keep: gives the candidates that may be used, such as a :class:`~viker_lightning.data.pictures.clip.FarFrom`;
            others are tried in place of the rest.

    Raises:
        DataError: if the folder does not exist, scikit-image is missing, ``people`` is empty, or fewer than k readable
            images are found or kept.
    """
    rng = random.Random(f"irrelevant/{images}/{seed}")
    check_images(images, k, people)
    if images in DRAWN:
        return _take(_draw(images, rng, k, size), k, keep, images, "loosen the filter or lower k")
    pool, where, remedy = _candidates(images, people)
    pictures = _take(_shuffle(pool, rng, k), k, keep, where, f"{remedy}, or loosen the filter")
    for picture in pictures:
        picture.open()
    if (different := len({picture.key for picture in pictures})) < k:
        log.warning("%s: only %d of the %d images chosen are different; remove copies", where, different, k)
    return pictures


def check_images(images: str, k: int, people: Sequence[Picture] = ()) -> None:
    """Makes sure that there are k images to choose from; opens and draws none.

    Args:
        images: as of :func:`irrelevant_images`.
        k: how many are wanted.
        people: pictures of the benchmark's own people, for kinds that need them.

    Raises:
        DataError: if there are fewer, or more are wanted than :data:`MOST`.
    """
    if k > MOST:
        raise DataError(f"model.method.k: found {k} images, expected at most {MOST}; lower it")
    if images not in DRAWN:
        pool, where, remedy = _candidates(images, people)
        if len(pool) < k:
            raise DataError(f"{where}: found {len(pool)} images, need k={k}; {remedy}")


def _take(batches: Iterator[list[Picture]], k: int, keep: Keep | None, where: str, remedy: str) -> list[Picture]:
    """The first k pictures of the batches that may be used."""
    taken: list[Picture] = []
    tried = 0
    for batch in batches:
        tried += len(batch)
        taken += keep(batch) if keep else batch
        if len(taken) >= k:
            return taken[:k]
    raise DataError(f"{where}: found {len(taken)} images that may be used among {tried}, need k={k}; {remedy}")


def _draw(kind: str, rng: random.Random, k: int, size: int) -> Iterator[list[Picture]]:
    for start in range(0, k * _TRIES, max(k, 1)) if k else [0]:
        yield [Picture(DRAWN[kind](rng, size)[0], f"{kind} {i}") for i in range(start, start + k)]


def _shuffle(pool: Sequence[Path | Picture], rng: random.Random, k: int) -> Iterator[list[Picture]]:
    first = rng.sample(range(len(pool)), k)
    yield [_read(pool[i]) for i in first]
    chosen = set(first)
    rest = [i for i in range(len(pool)) if i not in chosen]
    rng.shuffle(rest)
    for start in range(0, len(rest), max(k, 1)):
        yield [_read(pool[i]) for i in rest[start : start + max(k, 1)]]


def _candidates(images: str, people: Sequence[Picture]) -> tuple[Sequence[Path | Picture], str, str]:
    """All candidates, where they come from, and what to do if they are too few."""
    if images in FROM_DATA:
        unique = list({picture.key: picture for picture in people}.values())
        if not unique:
            raise DataError(f"images: {images!r} needs pictures of the benchmark's people, found none; pass people")
        return unique, f"images: {images!r}", "pass more pictures or lower k"
    if images == "photos":
        return _packaged_photos(), "images: 'photos'", "name a folder or lower k"
    folder = Path(images)
    if not folder.is_dir():
        raise DataError(f"images: {images!r} is neither a folder nor one of {', '.join(KINDS)}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return files, f"{folder} ({', '.join(SUFFIXES)})", "add images or lower k"


def _packaged_photos() -> list[Path]:
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise DataError("images: 'photos' needs scikit-image; pip install -e '.[photos]' in the repository")
    folder = Path(package.submodule_search_locations[0]) / "data"
    return [folder / name for name in PHOTOS if (folder / name).is_file()]


def _read(item: Path | Picture) -> Picture:
    if isinstance(item, Picture):
        return item
    try:
        with opened(item) as stream:
            return Picture(stream.read(), str(item))
    except OSError as error:
        raise DataError(f"{item}: cannot be read ({error.strerror}); fix or remove it") from error
