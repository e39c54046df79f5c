"""The irrelevant images of an unlearning run, kept away from the forget images if a model for that is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viker_lightning.data.records import Person, Picture
from viker_lightning.models import identify_weights
from viker_lightning.pictures.clip import ClipEmbedder, FarFrom
from viker_lightning.pictures.irrelevant import check_images, irrelevant_images

if TYPE_CHECKING:
    from .unlearn import Unlearn


def check_pictures(stage: Unlearn) -> None:
    """Makes sure, before there is a model, that a run's method gets as many images as it asks for.

    Raises:
        DataError: if there are too few.
    """
    check_images(stage.method.images, stage.method.k, _candidates(stage))


def irrelevant_pictures(stage: Unlearn, size: int) -> list[Picture]:
    """Draws the images a run's method asks for.

    Args:
        stage: the run; its data says who is forgotten, and ``similarity.json`` is written into its folder.
        size: side in pixels.
    """
    trainer, method = stage.trainer, stage.method
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    people = _candidates(stage)
    keep: FarFrom | None = None
    if stage.clip is not None and stage.clip_threshold is not None:
        embed = ClipEmbedder.named(stage.clip, trainer.strategy.root_device)
        if trainer.is_global_zero:
            stage.clip_weights = identify_weights(stage.clip, embed.files)
        keep = FarFrom(_pictures(data.people(data.forget_ids)), embed, stage.clip_threshold)
    try:
        return irrelevant_images(method.images, method.k, stage.drawn_with, size, people, keep)
    finally:
        if keep is not None and keep.matches and trainer.is_global_zero:
            keep.save(Path(trainer.default_root_dir) / "similarity.json")


def _candidates(stage: Unlearn) -> list[Picture]:
    """The pictures of the benchmark's own people that the method may use."""
    data: Any = stage.trainer.datamodule  # type: ignore[attr-defined]
    own = {"retain": data.retain_ids, "forget": data.forget_ids}
    return _pictures(data.people(own.get(stage.method.images, [])))


def _pictures(people: Sequence[Person]) -> list[Picture]:
    """Everybody's pictures, each once."""
    return list({picture.key: picture for person in people for picture in person.images}.values())
