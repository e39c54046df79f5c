"""What a page asks for: a photo, its questions, everybody's answers; and how these are shown. Nothing is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from viker_lightning.data.records import VQA, Picture
from viker_lightning.errors import UserError
from viker_lightning.reporting.answers import HEAT, marked
from viker_lightning.reporting.html import environment_of
from viker_lightning.training.callbacks.report import portrait

from .album import Album, Photo
from .speakers import Speakers
from .spoken_tokens import Token, mark_private

OWN = "own picture, or none"
"""Where a picture comes from that is not of the data."""

Colour = Literal["entropy", "probability"]
COLOURS: tuple[Colour, ...] = get_args(Colour)

MOST = 2.0
"""Entropy, in nats, that has the strongest colour: that of a choice among seven tokens that are equally likely."""

SIDE = 384
"""Pixels of the longer side of a photo that is shown."""


@dataclass(frozen=True)
class Exchange:
    """A question and what was said to it.

    Attributes:
        question: as it was asked.
        answers: by name of the model.
        truth: the question as the data have it, with its true answer; ``None`` if it is somebody's own.
    """

    question: str
    answers: Mapping[str, list[Token]]
    truth: VQA | None


@dataclass(frozen=True)
class Desk:
    """Photos of the data and models of a run, and what can be done with them."""

    speakers: Speakers
    photos: Album

    @property
    def places(self) -> list[str]:
        """Where a picture may come from."""
        return [*self.photos, OWN]

    def titles(self, place: str) -> list[str]:
        """What the photos of a split are called."""
        return [photo.title for photo in self.photos.get(place, [])]

    def questions(self, place: str, number: int | None) -> list[str]:
        """What the data ask about a photo."""
        photo = self._photo(place, number)
        return [one.question for one in photo.questions] if photo else []

    def shown(self, place: str, number: int | None, upload: str | None) -> str:
        """HTML of the photo that will be asked about."""
        try:
            picture = self._picture(place, number, upload)
            title = f"Photo of {photo.title}" if (photo := self._photo(place, number)) else "Your picture"
            return _rendered("photo.html", photo=picture and portrait(picture, SIDE), title=title)
        except UserError as error:
            return refused(error)

    def ask(self, place: str, number: int | None, upload: str | None, question: str) -> Exchange:
        """Asks everybody."""
        if not question.strip():
            raise UserError("question: found none; pick one, or type your own")
        question = question.encode("utf-8", "replace").decode()  # half a character, as of a cut emoji
        photo = self._photo(place, number)
        truth = photo.question(question) if photo else None
        said = self.speakers.answer(self._picture(place, number, upload), truth.question if truth else question.strip())
        private = truth.private if truth else ()
        return Exchange(question.strip(), {name: mark_private(one, private) for name, one in said.items()}, truth)

    def _photo(self, place: str, number: int | None) -> Photo | None:
        photos = self.photos.get(place, [])
        return photos[number] if number is not None and 0 <= number < len(photos) else None

    def _picture(self, place: str, number: int | None, upload: str | None) -> Picture | None:
        if place != OWN:
            photo = self._photo(place, number)
            if photo is None:
                raise UserError(f"photo: found no number {number} of {place!r}; pick one")
            return photo.picture
        if upload is None:
            return None
        picture = Picture(Path(upload).read_bytes(), Path(upload).name)
        picture.verify()
        return picture


def heat(token: Token, colour: Colour) -> int:
    """How strong a token's colour is, 0 to 10: the less sure the model is, the stronger; :data:`MOST` nats are 10."""
    unsure = token.entropy / MOST if colour == "entropy" else 1 - token.probability
    return round(HEAT * min(1.0, max(0.0, unsure)))


def shown_answers(exchange: Exchange | None, colour: Colour) -> str:
    """HTML of the answers, side by side; empty if nothing was asked yet."""
    if exchange is None:
        return ""
    answers = [(name, [(one, heat(one, colour)) for one in said]) for name, said in exchange.answers.items()]
    truth = exchange.truth
    reference = list(marked(truth.answer, truth.private)) if truth else None
    return _rendered(
        "answers.html", question=exchange.question, answers=answers, reference=reference, colour=colour, most=MOST
    )


def heading(title: str) -> str:
    """HTML of what stands above all."""
    return _rendered("title.html", title=title)


def refused(error: UserError) -> str:
    """HTML that says what is wrong."""
    return _rendered("refused.html", reason=str(error))


def style() -> str:
    """CSS of all of these."""
    return _rendered("talk.css")


def _rendered(template: str, **shown: object) -> str:
    return environment_of("viker_lightning.cli.chat").get_template(template).render(shown)
