"""The photos of a run's data, and what the data ask about them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import VQA, Picture, Split

SPLITS = (Split.FORGET, Split.TEST, Split.RETAIN, Split.REAL)
"""Whose photos are shown."""


@dataclass(frozen=True)
class Photo:
    """A photo with the open questions that the data ask about it.

    Attributes:
        title: the ID of the person, and a number where there are several photos of one person.
        picture: the photo.
        questions: each once, with its true answer.
    """

    title: str
    picture: Picture
    questions: tuple[VQA, ...]

    def question(self, text: str) -> VQA | None:
        """The question of the data with this text; ``None`` if the text is somebody's own."""
        return next((one for one in self.questions if one.question.strip() == text.strip()), None)


Album = Mapping[str, Sequence[Photo]]
"""Photos by split; a split without any is not in it."""


def album(data: Benchmark) -> Album:
    """The photos that a benchmark evaluates."""
    return {str(split): photos for split in SPLITS if (photos := _photos(data, split))}


def _photos(data: Benchmark, split: Split) -> list[Photo]:
    asked: dict[tuple[str, str], tuple[Picture, dict[str, VQA]]] = {}
    for group in data.evaluation(split, "image"):
        if group.image is not None:
            _, questions = asked.setdefault((group.person, group.image.key), (group.image, {}))
            for vqa in group.vqa:
                questions.setdefault(vqa.question.strip(), vqa)
    several, number = Counter(person for person, _ in asked), Counter[str]()
    photos = []
    for (person, _), (picture, questions) in asked.items():
        number[person] += 1
        title = f"{person}, photo {number[person]}" if several[person] > 1 else person
        photos.append(Photo(title, picture, tuple(questions.values())))
    return photos
