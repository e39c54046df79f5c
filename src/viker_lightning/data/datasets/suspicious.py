"""What is suspicious about data that can be read: one line each, to be thought about; nothing is left out for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from viker_lightning.data.records import VQA, ImageGroup, Person
from viker_lightning.errors import short

BLANK = "__"
"""How a cloze writes its blank."""


def suspicious_people(forget: Sequence[Person], retain: Sequence[Person]) -> list[str]:
    """What is suspicious about training data: photos on both sides, and questions with several answers."""
    forgotten = {picture.key: person.id for person in forget for picture in person.images}
    shared = {p.key: (p, person.id) for person in reversed(retain) for p in person.images if p.key in forgotten}
    lines = []
    if shared:
        picture, other = next(reversed(shared.values()))
        lines.append(
            f"{len(shared)} photos are both forgotten and retained, which pulls a model both ways; the first, of "
            f"{forgotten[picture.key]!r} and {other!r}: {picture.source}; keep one of the two"
        )
    questions: list[tuple[str, str, VQA]] = []
    for person in [*forget, *retain]:
        questions += [(key, person.id, vqa) for key in _subjects(person) for vqa in person.vqa]
    return lines + _answered_twice(questions, "trained on")


def suspicious_groups(groups: Sequence[ImageGroup], split: str, forgotten: Collection[str] = ()) -> list[str]:
    """What is suspicious about evaluation questions of a split, which should not show the photos with these keys."""
    where, lines = f"split {split!r}", []
    shown = {g.image.key: (g.image, g.person) for g in groups if g.image is not None and g.image.key in forgotten}
    if shown:
        picture, person = next(iter(shown.values()))
        lines.append(
            f"{where}: {len(shown)} photos are those of the forget set, so they test no other photo; the first, of "
            f"{person!r}: {picture.source}; give it another"
        )
    asked = ((g.image.key if g.image else g.person, g.person, vqa) for g in groups for vqa in g.vqa)
    lines += _answered_twice(asked, where)
    repeated = [(g.person, c) for g in groups for c in g.choices if len(set(c.options)) < len(c.options)]
    if repeated:
        person, choice = repeated[0]
        found = f"{where}: {len(repeated)} questions have an option twice; the first, of {person!r}: "
        lines.append(f"{found}{short(choice.question)} with {short(list(choice.options))}; give each once")
    full = [(g.person, c) for g in groups for c in g.clozes if BLANK not in c.question]
    if full:
        person, cloze = full[0]
        found = f"{where}: {len(full)} clozes have no blank; the first, of {person!r}: {short(cloze.question)}"
        lines.append(f"{found}; write it as {BLANK}")
    return lines


def _subjects(person: Person) -> list[str]:
    """What a person's questions are asked about: every photo, or the person where there is none."""
    return [picture.key for picture in person.images] or [person.id]


def _answered_twice(asked: Iterable[tuple[str, str, VQA]], where: str) -> list[str]:
    """One line if a question about the same photo has several answers."""
    answers: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for about, person, vqa in asked:
        answers[about, vqa.question].setdefault(vqa.answer.strip(), person)
    several = [(question, found) for (_, question), found in answers.items() if len(found) > 1]
    if not several:
        return []
    question, found = several[0]
    first, second = list(found.items())[:2]
    said = f"{short(question)}: {short(first[0])} (of {first[1]!r}) and {short(second[0])} (of {second[1]!r})"
    return [f"{where}: {len(several)} questions have different answers about one photo; the first: {said}; keep one"]
