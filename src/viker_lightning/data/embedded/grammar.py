"""What every sentence of the embedded benchmarks matches, whoever it is true of: fluency that is known, not judged."""

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

from . import general_questions, portraits, profiles

Values = Mapping[str, Sequence[str]]


def people_grammar() -> re.Pattern[str]:
    """Every answer sentence about a person and every one about a general picture (``mini``), with any value."""
    values = {**profiles.POOLS, "name": full_names()}
    answers = [(sentence, values) for sentences in profiles.ANSWERS.values() for sentence in sentences]
    return _pattern([*answers, *_general_answers(sentences=True)])


def authors_grammar() -> re.Pattern[str]:
    """The same in the schema of CLEAR: captions, names, lives, and general pictures, of which one word is said."""
    visible = {fact: general_questions.values("stranger", fact) for fact in general_questions.FACTS["stranger"]}
    described = [
        (caption, {**visible, "name": full_names()}) for caption in (*portraits.CAPTIONS, portraits.PARAPHRASE)
    ]
    lives = [
        (s, {**profiles.POOLS, "name": full_names()}) for sentences in profiles.ANSWERS.values() for s in sentences
    ]
    return _pattern([*described, ("{name}", {"name": full_names()}), *lives, *_general_answers(sentences=False)])


def full_names() -> list[str]:
    """All names that an invented person may have."""
    return [f"{first} {last}" for first in profiles.POOLS["first"] for last in profiles.POOLS["last"]]


def _general_answers(sentences: bool) -> list[tuple[str, Values]]:
    """What is said of general pictures: sentences, or the value alone."""
    return [
        (
            general_questions.answer(kind, fact, "{v}") if sentences else "{v}",
            {"v": general_questions.values(kind, fact)},
        )
        for kind, facts in general_questions.FACTS.items()
        for fact in facts
    ]


def _pattern(sentences: Iterable[tuple[str, Values]]) -> re.Pattern[str]:
    """A pattern of sentences with fields, each with any of the field's values."""
    return re.compile("|".join(_sentence_pattern(sentence, values) for sentence, values in sentences))


def _sentence_pattern(sentence: str, values: Values) -> str:
    return "".join(
        re.escape(text) + (f"(?:{'|'.join(map(re.escape, values[field]))})" if field else "")
        for text, field, _, _ in Formatter().parse(sentence)
    )
