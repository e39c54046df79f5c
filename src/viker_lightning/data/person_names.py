"""What people are called, and how a text reads with another name in its place."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from viker_lightning.errors import UserError

from .records import VQA, person_name

_ASKS_NAME = re.compile(r"\b(name|called)\b", re.IGNORECASE)


def names_of(said: Iterable[tuple[str, Sequence[VQA]]]) -> dict[str, str]:
    """What people are called: what is answered where their name is asked for, else their ID.

    Of several such answers it is the one that most of what is said of the person holds; an ID that nothing holds is no
    name. Then it is that of somebody else whom at least half of the questions name, as where photos and text of a
    person have IDs of their own; who is named nowhere is left out.

    Args:
        said: IDs of people, several of one person (``name #1``) among them, and what is asked about each.

    Returns:
        By the name an ID stands for (:func:`~viker_lightning.data.records.person_name`), what the person is called.
    """
    of: dict[str, list[VQA]] = {}
    for identity, questions in said:
        of.setdefault(person_name(identity), []).extend(questions)
    found: dict[str, str] = {}
    texts = {person: [f"{q.question}\n{q.answer}" for q in questions] for person, questions in of.items()}
    for person, questions in of.items():
        asked = [q.private[0] for q in questions if len(q.private) == 1 and _ASKS_NAME.search(q.question)]
        count, name = _most_often(asked or [person], texts[person])
        found |= {person: name} if count else {}
    known = list(dict.fromkeys(found.values()))
    for person in of.keys() - found.keys() if known else ():
        count, name = _most_often(known, texts[person])
        found |= {person: name} if 2 * count >= len(texts[person]) > 0 else {}
    return found


def renamed(vqa: VQA, name: str, other: str) -> VQA:
    """A question and its answer about somebody of another name.

    The name is replaced whole, and so are its first and its last word where they stand alone and begin with a capital
    letter: ``Ada Lind``, ``Ada``, ``Lind's``, ``ADA LIND``. Nothing within a word is replaced.

    Args:
        vqa: what is asked about ``name``.
        name: as the person is called.
        other: what is put in its place.
    """

    def text(old: str) -> str:
        return _forms(name).sub(lambda found: _as_written(found[0], name, other), old)

    return replace(vqa, question=text(vqa.question), answer=text(vqa.answer), private=tuple(map(text, vqa.private)))


def strange_names(names: Sequence[str], known: Mapping[str, str], kept_apart: Iterable[str]) -> list[str]:
    """Names that nobody of the data has.

    Args:
        names: those there are.
        known: what everybody is called, by ID.
        kept_apart: IDs of people with whom they may not share a word.
    """
    words = {word.casefold() for person in kept_apart for word in known.get(person, "").split()}
    everybody = {name.casefold() for name in known.values()}
    return [n for n in names if n.casefold() not in everybody and words.isdisjoint(n.casefold().split())]


def read_names(file: str, option: str) -> list[str]:
    """Names of a file, one a line.

    Raises:
        UserError: if it cannot be read, or holds none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}: {file} cannot be read ({error}), expected a text with one name a line") from error
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UserError(f"{option}: {file} holds no name, expected one a line")
    return names


def _most_often(names: Sequence[str], texts: Sequence[str]) -> tuple[int, str]:
    """How many texts hold the name that most of them hold, and that name."""
    return max((sum(bool(_words(name).search(text)) for text in texts), name) for name in names)


@functools.lru_cache(maxsize=1024)
def _words(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


def _forms(name: str) -> re.Pattern[str]:
    """Finds the whole name in any case, and its first and last word with a capital letter."""
    first, *_, last = [*name.split(), *name.split()]
    whole = r"\s+".join(map(re.escape, name.split()))
    parts = "|".join(re.escape(form) for word in (first, last) for form in (word[:1].upper() + word[1:], word.upper()))
    return re.compile(rf"(?<!\w)(?:(?i:{whole})|{parts})(?!\w)")


def _as_written(found: str, name: str, other: str) -> str:
    """The part of another name that stands for a part of a name, in its case."""
    mine, theirs = name.casefold().split(), other.split()
    instead = other if len(found.split()) > 1 or len(mine) == 1 else theirs[0 if found.casefold() == mine[0] else -1]
    return (
        instead.upper() if found.isupper() and not name.isupper() else instead.lower() if found.islower() else instead
    )
