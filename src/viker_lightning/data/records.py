"""The vocabulary every benchmark is translated into: questions about one picture, grouped by that picture."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import ClassVar, TypeVar
from weakref import WeakValueDictionary

from PIL import Image, ImageOps

from viker_lightning.errors import UserError

from . import image_files

Read = TypeVar("Read")
Photo = str | Path | bytes | Image.Image
"""What a :class:`Picture` is made of."""


class Split(StrEnum):
    """Where a question is evaluated.

    ``forget``: people to be unlearned; ``test``: the same people on other photos, asked in other words; ``retain``:
    people that must stay known and may be used in a retain loss; ``kept``: what stays known of people who are forgotten
    in part, as in training; ``real``: known people no loss ever sees; ``general``: everything else.
    """

    FORGET = "forget"
    TEST = "test"
    RETAIN = "retain"
    KEPT = "kept"
    REAL = "real"
    GENERAL = "general"


class Labels(StrEnum):
    """Which tokens of a question count in a training loss.

    ``answer``: the answer and the end of sequence behind it; ``unended``: the answer alone; ``text``: all text that
    stands in the sequence, prompt and question included, without the end of sequence. Positions of the image do not
    count, unless the encoder is told so (``data.image_labels``). Where the end of sequence belongs to the chat template
    (Qwen's ``<|im_end|>``), it is part of the text.
    """

    ANSWER = "answer"
    UNENDED = "unended"
    TEXT = "text"


@dataclass(frozen=True)
class Picture:
    """An image as stored: encoded bytes and where they came from. Decoded when asked, never kept decoded."""

    data: bytes = field(repr=False)
    source: str

    _in_use: ClassVar[WeakValueDictionary[str, "Picture"]] = WeakValueDictionary()
    """Pictures of this process by :attr:`key`, for as long as anybody holds them."""

    @classmethod
    def of(cls, image: "Picture | Photo") -> "Picture":
        """Takes an image file, encoded bytes or an image in memory, which is encoded as PNG, upright.

        Raises:
            UserError: if the file cannot be read, or it is something else.
        """
        match image:
            case Picture():
                return image
            case bytes():
                return cls(image, "bytes")
            case Image.Image():
                upright = ImageOps.exif_transpose(image)
                fits = upright.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # PNG has no CMYK
                (upright if fits else upright.convert("RGB")).save(encoded := BytesIO(), "PNG")
                return cls(encoded.getvalue(), "an image in memory")
            case str() | Path():
                try:
                    return cls(Path(image).read_bytes(), str(image))
                except OSError as error:
                    why = error.strerror or error
                    raise UserError(f"{image}: {why}, expected an image file; give another") from error
        raise UserError(f"photo: found {type(image).__name__}, expected a file, bytes, a PIL image or a Picture")

    def shared(self) -> "Picture":
        """The first picture with these bytes that is still in use, so that repeated photos are in memory once."""
        return self._in_use.setdefault(self.key, self)

    @cached_property
    def key(self) -> str:
        """Hash of what is seen, the identity under which features and key/values of this picture are kept.

        It is that of the bytes, and of what is done to them where they are not looked at as they are stored.
        """
        return hashlib.sha256(self.data + image_files.treatment(self.data)).hexdigest()[:32]

    @cached_property
    def _size(self) -> tuple[int, int]:
        return self._read(image_files.size)

    def size(self) -> tuple[int, int]:
        """Width and height as it is seen, read from the header.

        Raises:
            UserError: if the bytes are not an image; the message names the source.
        """
        return self._size

    def verify(self) -> None:
        """Checks that the bytes are a whole image, decoding no more of it than that takes.

        Raises:
            UserError: if they are not; the message names the source.
        """
        self._read(image_files.check)

    def open(self) -> Image.Image:
        """Decodes to RGB, upright.

        Raises:
            UserError: if the bytes are not an image; the message names the source.
        """
        return self._read(image_files.pixels)

    def _read(self, how: Callable[[bytes], Read]) -> Read:
        try:
            return how(self.data)
        except image_files.NotAnImage as error:
            raise UserError(f"{self.source}: not a readable image ({error}); replace or remove it") from error


@dataclass(frozen=True)
class VQA:
    """A question with the answer a model is trained on or compared with.

    Attributes:
        question: the text after the image, as it is asked.
        answer: the reference answer.
        private: spans of ``answer`` that only the person's data can tell (the rest is template); empty where nothing
            is private.
        paraphrase: for evaluation, ``answer`` in other words; empty where there is none (in a truth ratio the answer
            itself takes its place, as in TOFU and CLEAR).
        perturbed: for evaluation, wrong answers of the same form.
        labels: which tokens count in a training loss.
        attributes: what about the person the answer tells, as the data call it; empty where they do not say.
        correction: the same question with the truth, where ``answer`` is a falsehood that is to give way to it.
    """

    question: str
    answer: str
    private: tuple[str, ...] = ()
    # Never trained on, so not part of the text a fingerprint of training data is made of.
    paraphrase: str = field(default="", repr=False)
    perturbed: tuple[str, ...] = field(default=(), repr=False)
    labels: Labels = field(default=Labels.ANSWER, repr=False)
    attributes: tuple[str, ...] = field(default=(), repr=False)
    correction: "VQA | None" = field(default=None, repr=False)


@dataclass(frozen=True)
class MultipleChoice:
    """A question with options, ``options[correct]`` being the true one; ``attributes`` as of a :class:`VQA`."""

    question: str
    options: tuple[str, ...]
    correct: int
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cloze:
    """A sentence with one blank, written ``__``, and what belongs there; ``attributes`` as of a :class:`VQA`."""

    question: str
    answer: str
    attributes: tuple[str, ...] = ()


def _check_picture(person: str, image: object) -> None:
    if not isinstance(image, Picture):
        raise UserError(f"{person}: found a photo of type {type(image).__name__}, expected Picture.of(photo)")


@dataclass(frozen=True)
class ImageGroup:
    """One image and all questions asked about it: the unit of batching, in training and in evaluation.

    Attributes:
        person: ID of the person (or scene) shown.
        image: the picture; ``None`` for text-only questions.
        split: the evaluation split, or ``None`` for training data.
        vqa: open questions; training uses only these.
        choices: multiple-choice questions.
        clozes: fill-in-the-blank questions.
    """

    person: str
    image: Picture | None
    split: Split | None = None
    vqa: tuple[VQA, ...] = ()
    choices: tuple[MultipleChoice, ...] = ()
    clozes: tuple[Cloze, ...] = ()

    def __post_init__(self) -> None:
        if self.image is not None:
            _check_picture(self.person, self.image)

    @property
    def text_length(self) -> int:
        """How many characters are asked and answered; groups of like length make even batches."""
        texts = [t for q in self.vqa for t in (q.question, q.answer, q.paraphrase, *q.perturbed)]
        texts += [c.question for c in self.clozes] + [t for c in self.choices for t in (c.question, *c.options)]
        return sum(map(len, texts))


@dataclass(frozen=True)
class Person:
    """Training data of one person (or scene): photos and questions, any question may be asked about any photo.

    Without photos the questions are text-only. Where questions belong to one of several photos, every photo is a
    ``Person`` of its own, with the ID ``name #1``, ``name #2`` and so on. What stays known of somebody who is forgotten
    in part is one, too: ``name (kept)``.
    """

    id: str
    images: tuple[Picture, ...]
    vqa: tuple[VQA, ...]

    def __post_init__(self) -> None:
        for image in self.images:
            _check_picture(self.id, image)


def person_name(identity: str) -> str:
    """Who a :class:`Person` is: somebody with several photos has an ID for each, ``name #1`` and so on."""
    return re.sub(r"( #\d+| \(text\))?( \(kept\))?$", "", identity, count=1)


@dataclass
class Training:
    """What a benchmark trains on.

    Attributes:
        people: everybody who is to be forgotten or retained.
        forget: IDs of those to be forgotten.
        retain: IDs of those to be retained.
        kept: IDs of what is retained of people to be forgotten.
        base: what the vanilla and the gold model are taught besides, and no unlearning step ever sees.
    """

    people: list[Person]
    forget: list[str]
    retain: list[str]
    base: list[Person] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
