"""People who are forgotten in part: which questions are forgotten, and which stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Person, Split, Training
from viker_lightning.errors import DataError

Asked = TypeVar("Asked", VQA, MultipleChoice, Cloze)

KEPT = " (kept)"
"""Ends the ID of what stays known of somebody; see :func:`~viker_lightning.data.records.person_name`."""


def kept_person(person: Person, vqa: Iterable[VQA]) -> Person:
    """What stays known of a person: these questions, behind the same photos."""
    return replace(person, id=person.id + KEPT, vqa=tuple(vqa))


def forget_attributes(training: Training, attributes: Sequence[str], root: str) -> Training:
    """Training data in which people of the forget set keep what tells none of some attributes.

    An answer that tells one of the attributes is forgotten, whatever else it tells: a biography that names the home
    would give it away. Who has no such answer is not forgotten at all.

    Args:
        training: what was read.
        attributes: what is to be forgotten.
        root: of the data, for messages.

    Raises:
        DataError: if nothing in the forget set tells an attribute.
    """
    forget = set(training.forget)
    questions = [vqa for person in training.people if person.id in forget for vqa in person.vqa]
    known = {attribute for vqa in questions for attribute in vqa.attributes}
    if unknown := [a for a in attributes if a not in known]:
        names = ", ".join(sorted(known)) or "none, since its rows record no attributes"
        raise DataError(f"data.attributes: found {unknown[0]!r}, expected some of those in {root}: {names}")
    people: list[Person] = []
    kept: list[Person] = []
    for person in training.people:
        if person.id in forget and (rest := [vqa for vqa in person.vqa if not tells(vqa, attributes)]):
            kept.append(kept_person(person, rest))
            person = replace(person, vqa=tuple(vqa for vqa in person.vqa if tells(vqa, attributes)))
        people += [person] if person.vqa else []
    there = {person.id for person in people}
    ids = [person.id for person in kept]
    return replace(
        training, people=people + kept, forget=[i for i in training.forget if i in there], kept=training.kept + ids
    )


def part_of(groups: Iterable[ImageGroup], attributes: Sequence[str], split: Split) -> list[ImageGroup]:
    """Evaluation groups of the forget set with the questions that belong to a split: forgotten ones, or those kept."""

    def part(asked: tuple[Asked, ...]) -> tuple[Asked, ...]:
        return tuple(one for one in asked if tells(one, attributes) != (split == Split.KEPT))

    parts = [
        replace(group, split=split, vqa=part(group.vqa), choices=part(group.choices), clozes=part(group.clozes))
        for group in groups
    ]
    return [group for group in parts if group.vqa or group.choices or group.clozes]


def tells(asked: VQA | MultipleChoice | Cloze, attributes: Iterable[str]) -> bool:
    """Whether the answer to a question tells any of some attributes."""
    return not set(attributes).isdisjoint(asked.attributes)
