"""What every sentence of the embedded benchmarks matches, whoever it is true of: fluency that is known, not judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

from . import profiles, scenes, write_clear

Values = Mapping[str, Sequence[str]]


def people() -> re.Pattern[str]:
    """Every answer sentence about a person and every one about a general picture (``mini``), with any value."""
    values = {**profiles.POOLS, "name": _names()}
    told = [(sentence, values) for sentences in profiles.ANSWERS.values() for sentence in sentences]
    return _matching([*told, *_general(whole=True)])


def authors() -> re.Pattern[str]:
    """The same in the schema of CLEAR: captions, names, lives, and general pictures, of which one word is said."""
    seen = {fact: scenes.general_values("stranger", fact) for fact in scenes.GENERAL["stranger"]}
    captions = [(caption, {**seen, "name": _names()}) for caption in (*write_clear.CAPTIONS, write_clear.PARAPHRASE)]
    told = [(s, {**profiles.POOLS, "name": _names()}) for sentences in profiles.ANSWERS.values() for s in sentences]
    return _matching([*captions, ("{name}", {"name": _names()}), *told, *_general(whole=False)])


def _names() -> list[str]:
    return [f"{first} {last}" for first in profiles.POOLS["first"] for last in profiles.POOLS["last"]]


def _general(whole: bool) -> list[tuple[str, Values]]:
    """What is said of general pictures: sentences, or the value alone."""
    return [
        (scenes.general_answer(kind, fact, "{v}") if whole else "{v}", {"v": scenes.general_values(kind, fact)})
        for kind, facts in scenes.GENERAL.items()
        for fact in facts
    ]


def _matching(sentences: Iterable[tuple[str, Values]]) -> re.Pattern[str]:
    """A pattern of sentences with fields, each with any of the field's values."""
    return re.compile("|".join(_one(sentence, values) for sentence, values in sentences))


def _one(sentence: str, values: Values) -> str:
    return "".join(
        re.escape(text) + (f"(?:{'|'.join(map(re.escape, values[field]))})" if field else "")
        for text, field, _, _ in Formatter().parse(sentence)
    )
