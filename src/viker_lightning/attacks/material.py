"""Whom an attack is about and what is asked: read from the data of the gold run, the same for everybody attacked."""

import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import ImageGroup, Person, Split, person_name
from viker_lightning.errors import UserError

log = logging.getLogger(__name__)

PUNCTUATION = ".,;:!?\"'()"


@dataclass(frozen=True)
class Material:
    """The people of an attack.

    Attributes:
        data: the benchmark, set up for unlearning.
        people: training records of the people to be forgotten; somebody with several photos may have several.
        kept: training records of as many people who are to be kept, drawn.
        others: training records of everybody else who is to be kept: examples, and what probes are trained on.
        forget: open questions with private spans about photos of the people to be forgotten, as trained.
        test: the same people on other photos, in other words; empty where the data have none.
        retain: open questions with private spans about the people of ``kept``.
        seed: of whatever an attack draws.
    """

    data: Benchmark
    people: Sequence[Person]
    kept: Sequence[Person]
    others: Sequence[Person]
    forget: Sequence[ImageGroup]
    test: Sequence[ImageGroup]
    retain: Sequence[ImageGroup]
    seed: int

    @property
    def asked(self) -> list[ImageGroup]:
        """What every attack asks: about the people to be forgotten, as trained, and about those who are kept."""
        return [*self.forget, *self.retain]

    def fingerprint(self) -> str:
        """Changes with the data, with who is asked about, and with the seed."""
        asked = repr([(g.person, g.image and g.image.key, g.vqa) for g in (*self.asked, *self.test)])
        asked += repr([(q.paraphrase, q.perturbed) for g in (*self.asked, *self.test) for q in g.vqa])
        return hashlib.sha256(f"{self.data.fingerprint()}/{asked}/{self.seed}".encode()).hexdigest()[:16]


def gather(data: Benchmark, people: int | None = None, seed: int = 0) -> Material:
    """Draws whom to attack and what to ask.

    Args:
        data: set up for unlearning.
        people: attack at most so many of the people to be forgotten; ``None`` is all.
        seed: of the draw.

    Raises:
        UserError: if no question about the people to be forgotten has a private span, or nobody is kept.
    """
    forget = private_questions(data.evaluation(Split.FORGET, "image"))
    drawn = _draw([g.person for g in forget], people, seed)
    forget = _about(forget, drawn)
    if not forget:
        raise UserError(f"{data.root}: no question about the forget set has a private span, so nothing can come back")
    retain = private_questions(data.evaluation(Split.RETAIN, "image"))
    if data.max_people is not None and len({person_name(i) for i in data.forget_ids}) > data.max_people:
        log.warning("%s: data.max_people=%d: no more of the forget set are attacked", data.root, data.max_people)
    kept = _draw([g.person for g in retain], len(drawn), seed)
    if not kept:
        raise UserError(f"{data.root}: nobody is retained with private spans; an attack needs people to compare with")
    test = _about(private_questions(data.evaluation(Split.TEST, "image")), drawn)
    names = {person_name(i) for i in drawn}
    others = {person_name(i) for i in kept}
    records = data.people(data.retain_ids)
    return Material(
        data,
        [p for p in data.people(data.forget_ids) if person_name(p.id) in names],
        [p for p in records if person_name(p.id) in others],
        [p for p in records if person_name(p.id) not in others],
        forget,
        test,
        _about(retain, kept),
        seed,
    )


def private_questions(groups: Sequence[ImageGroup]) -> list[ImageGroup]:
    """The open questions with private spans of evaluation groups, and nothing else of them."""
    only = [replace(g, vqa=tuple(q for q in g.vqa if q.private), choices=(), clozes=()) for g in groups]
    return [g for g in only if g.vqa]


def heard(data: Benchmark) -> set[str]:
    """Words of what is asked and answered about people who are kept, as they stand there and without punctuation.

    Every model of the data has met these.
    """
    texts = (f"{q.question} {q.answer}" for p in data.people(data.retain_ids) for q in p.vqa)
    words = {word for text in texts for word in text.split()}
    return words | {word.strip(PUNCTUATION) for word in words}


def _about(groups: Sequence[ImageGroup], people: set[str]) -> list[ImageGroup]:
    """The groups about some of the people."""
    return [group for group in groups if group.person in people]


def _draw(people: Sequence[str], most: int | None, seed: int) -> set[str]:
    distinct = sorted(set(people))
    return set(distinct if most is None or len(distinct) <= most else random.Random(seed).sample(distinct, most))
