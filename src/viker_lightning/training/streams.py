"""The streams that are made of forget questions: about strangers, and with other answers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from viker_lightning.data.person_names import renamed
from viker_lightning.data.records import VQA, ImageGroup, Person, Picture, person_name
from viker_lightning.errors import UserError
from viker_lightning.ideal import OwnAnswers
from viker_lightning.methods import Method, Strangers


class ForgetVariants:
    """Makes the streams ``strangers`` and ``alternative`` of the forget questions of a step.

    What is drawn depends on the seed, the step and the question alone, so that a run that is resumed, or takes its
    steps on several processes, draws the same.

    Args:
        method: says what the streams hold.
        seed: of all draws.
        strangers: their pictures; empty if none are needed.
        people: whose answers may stand as wrong ones.
        called: what the people of questions without photo are called, where these are asked about strangers, too.
        names: of these strangers.
    """

    def __init__(
        self,
        method: Method,
        seed: int,
        strangers: Sequence[Picture],
        people: Sequence[Person],
        called: Mapping[str, str] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.seed, self.pictures = seed, list(strangers)
        self.called, self.names = called or {}, names[: len(self.pictures)]
        self._other = method.other_answers
        self._per_step = min((strangers.per_step for strangers in method.strangers_shown), default=1)
        self.rehearsal = any(strangers.rehearsal for strangers in method.strangers_shown)
        self.asks_own = self.rehearsal or isinstance(self._other, Strangers)
        self.own_answers: OwnAnswers | None = None
        self._answers: dict[str, list[str]] = {}  # everybody's, by question
        if self._other == "wrong":
            for vqa in [vqa for person in people for vqa in person.vqa]:
                self._answers.setdefault(vqa.question, []).append(vqa.answer)

    def groups(self, stream: str, forget: Sequence[ImageGroup], step: int) -> list[ImageGroup]:
        """The image groups of a stream.

        Args:
            stream: ``strangers`` or ``alternative``.
            forget: the forget questions of the step.
            step: its number.

        Raises:
            UserError: if there is no wrong answer to a question.
        """
        if stream == "alternative":
            answered = [self._with_other_answers(group, self._stranger(group, step)) for group in forget]
            return [group for group in answered if group.vqa]
        return self._about_strangers(forget, step)

    def everything(self, stream: str, forget: Sequence[ImageGroup]) -> list[ImageGroup]:
        """All a stream may ask: every question behind every stranger, or with its other answer."""
        if stream == "alternative":
            strangers = self.pictures if isinstance(self._other, Strangers) else [None]
            answered = [self._with_other_answers(group, stranger) for group in forget for stranger in strangers]
            return [group for group in answered if group.vqa]
        vqa = tuple(dict.fromkeys(vqa for group in forget if group.image is not None for vqa in group.vqa))
        named = [self._named(g, name) for g in forget if g.image is None for name in self.names]
        return [group for group in (*(self._behind(picture, vqa) for picture in self.pictures), *named) if group.vqa]

    def _about_strangers(self, forget: Sequence[ImageGroup], step: int) -> list[ImageGroup]:
        """Questions about people, asked about strangers: behind their photos, or by name where names are given."""
        asked: dict[int, list[VQA]] = {}
        named: list[ImageGroup] = []
        for group in forget:
            if group.image is not None:
                asked.setdefault(self._draw(group, step), []).extend(group.vqa)
            elif self.names:
                named.append(self._named(group, self.names[self._draw(group, step) % len(self.names)]))
        alike = {number: sorted(vqa, key=lambda one: one.question) for number, vqa in asked.items()}  # share a prompt
        shown = [self._behind(self.pictures[number], tuple(vqa)) for number, vqa in alike.items()]
        return [group for group in (*shown, *named) if group.vqa]

    def _draw(self, group: ImageGroup, step: int) -> int:
        """Which stranger a group is asked about: one of the few that the step shows."""
        key = group.image.key if group.image else ""
        place = random.Random(f"{self.seed}/{group.person}/{key}").randrange(2**32)
        return random.Random(f"{self.seed}/{step}/{place % self._per_step}").randrange(len(self.pictures))

    def _behind(self, picture: Picture, vqa: tuple[VQA, ...]) -> ImageGroup:
        if self.rehearsal:
            assert self.own_answers is not None
            answers = [(one, self.own_answers.answer(picture, one.question)) for one in vqa]
            vqa = tuple(replace(one, answer=answer, private=()) for one, answer in answers if answer is not None)
        return ImageGroup("stranger", picture, vqa=vqa)

    def _named(self, group: ImageGroup, name: str) -> ImageGroup:
        """The questions that name the person, with another name."""
        mine = self.called.get(person_name(group.person))
        asked = [renamed(vqa, mine, name) for vqa in group.vqa] if mine else []
        vqa = tuple(replace(new, private=()) for new, old in zip(asked, group.vqa, strict=False) if new != old)
        return ImageGroup("stranger", None, vqa=vqa)

    def _stranger(self, group: ImageGroup, step: int) -> Picture | None:
        """Behind whom the frozen model answers; a name in a question without photo still says who is meant."""
        own = isinstance(self._other, Strangers) and group.image is not None
        return self.pictures[self._draw(group, step)] if own else None

    def _with_other_answers(self, group: ImageGroup, stranger: Picture | None) -> ImageGroup:
        answered = [(vqa, self._other_answer(vqa, group, stranger)) for vqa in group.vqa]
        vqa = tuple(replace(vqa, answer=answer, private=()) for vqa, answer in answered if answer is not None)
        return replace(group, vqa=vqa)

    def _other_answer(self, vqa: VQA, group: ImageGroup, stranger: Picture | None) -> str | None:
        if vqa.correction is not None:
            return vqa.correction.answer
        rng = random.Random(f"{self.seed}/{vqa.question}")
        if isinstance(self._other, Strangers):
            if group.image is None or stranger is None:
                return None
            assert self.own_answers is not None
            return self.own_answers.answer(stranger, vqa.question)
        if not isinstance(self._other, str):
            return rng.choice(self._other)
        others = vqa.perturbed or [text for text in self._answers.get(vqa.question, []) if text != vqa.answer]
        if not others:
            raise UserError(
                f"model.method.alternative: found no wrong answer to {vqa.question!r}, expected perturbed answers in "
                "the data or another person who is asked the same; use sentences, or own"
            )
        return rng.choice(others)
