"""The same question with less to go by: a noised image, or an instruction before the question."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.errors import UserError

from .reference import Level


@dataclass(frozen=True)
class Noised:
    """A reference of less knowledge, which is shown image groups otherwise; answers stay what they are.

    Attributes:
        noise: standard deviation of Gaussian noise on the image, 0 to 1 of the range of pixels.
        instruction: what stands before the question; empty for nothing.
        level: how much is used of what it says.
    """

    noise: float = 0.0
    instruction: str = ""
    level: Level = "kl"
    _pictures: dict[str, Picture] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1 or not (self.noise or self.instruction):
            raise UserError(
                f"Noised.noise: found {self.noise}, expected 0 to 1, and above 0 where there is no instruction"
            )

    def groups(self, groups: Sequence[ImageGroup]) -> list[ImageGroup]:
        """The same groups, noised or instructed."""
        return [self._group(group) for group in groups]

    def _group(self, group: ImageGroup) -> ImageGroup:
        before = f"{self.instruction.strip()} " if self.instruction else ""
        vqa = tuple(replace(vqa, question=before + vqa.question) for vqa in group.vqa)
        image = group.image if group.image is None or self.noise <= 0 else self._picture(group.image)
        return replace(group, image=image, vqa=vqa)

    def _picture(self, picture: Picture) -> Picture:
        if picture.key not in self._pictures:
            self._pictures[picture.key] = add_noise(picture, self.noise)
        return self._pictures[picture.key]


def add_noise(picture: Picture, noise: float) -> Picture:
    """A picture with Gaussian noise, which is the same for the same picture.

    Args:
        picture: any.
        noise: standard deviation, 0 to 1 of the range of pixels.
    """
    pixels = np.asarray(picture.open(), dtype=np.float32)
    rng = np.random.default_rng(int(picture.key[:16], 16))
    noisy = np.clip(pixels + rng.normal(0, 255 * noise, pixels.shape), 0, 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "PNG")
    return Picture(file.getvalue(), f"{picture.source}, noised")
