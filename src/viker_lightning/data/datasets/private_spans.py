"""Private spans of answers: whether an answer holds those recorded, and which they are where none are recorded."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from viker_lightning.data.records import VQA, ImageGroup, Person

from .reading.row import Row

_WORD = re.compile(r"[^\s]+")


def holds(text: str, span: str) -> bool:
    """Whether a span stands in a text as whole words."""
    return re.search(rf"(?<!\w){re.escape(span)}(?!\w)", text) is not None


def check_private_spans(row: Row, column: str, answer: str, private: Iterable[str]) -> None:
    """Makes sure that private spans occur in the answer as whole words."""
    for span in private:
        if not holds(answer, span):
            raise row.error(column, f"{span!r} does not occur in the answer {answer!r}", "copy whole words from there")


def spans_only_in(answer: str, other: str) -> tuple[str, ...]:
    """Private spans of an answer beside which another one stands: the words that the other has not."""
    known = {"", *(_bare(word) for word in _WORD.findall(other))}
    return _spans(answer, [(match, _bare(match[0]) not in known) for match in _WORD.finditer(answer)])


def infer_private_spans(people: Iterable[Person]) -> list[Person]:
    """Marks, in answers without recorded private spans, the words that other people's answers do not share.

    Where at least four people are asked the same question, a word is private if fewer than half of their answers have
    it. For a question asked less often, a word is private if it is not in the question and fewer than 1 % of all
    answers have it. An estimate, and reported as such: MLLMU-Bench answers are a shared template around a short
    private span, but nothing records the span. Answers that record private spans are left as they are.
    """
    people = list(people)
    by_question: dict[str, list[set[str]]] = defaultdict(list)
    everywhere = Counter[str]()
    for person in people:
        for vqa in person.vqa:
            words = {_bare(w) for w in _WORD.findall(vqa.answer)}
            by_question[vqa.question].append(words)
            everywhere.update(words)
    total = sum(map(len, by_question.values()))

    def is_private(word: str, question: str) -> bool:
        answers = by_question[question]
        if len(answers) >= 4:
            return sum(word in words for words in answers) < len(answers) / 2
        return word not in {_bare(w) for w in _WORD.findall(question)} and everywhere[word] < max(2, total / 100)

    def mark(vqa: VQA) -> VQA:
        if vqa.private:
            return vqa
        flags = [(m, bool(_bare(m[0])) and is_private(_bare(m[0]), vqa.question)) for m in _WORD.finditer(vqa.answer)]
        return replace(vqa, private=_spans(vqa.answer, flags))

    return [replace(person, vqa=tuple(mark(vqa) for vqa in person.vqa)) for person in people]


def infer_in_groups(groups: Sequence[ImageGroup], people: Sequence[Person]) -> list[ImageGroup]:
    """Marks private spans in evaluation answers as :func:`infer_private_spans` does, training answers beside them."""
    asked = [Person(group.person, (), group.vqa) for group in groups]
    marked = infer_private_spans([*people, *asked])[len(people) :]
    return [replace(group, vqa=person.vqa) for group, person in zip(groups, marked, strict=True)]


def _spans(answer: str, flags: Sequence[tuple[re.Match[str], bool]]) -> tuple[str, ...]:
    spans, start = [], None
    for i, (match, private) in enumerate(flags):
        if private and start is None:
            start = match.start()
        if start is not None and (not private or i == len(flags) - 1):
            end = match.end() if private else flags[i - 1][0].end()
            spans.append(answer[start:end].strip(".,;:!?\"'()"))
            start = None
    return tuple(dict.fromkeys(s for s in spans if s))


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()").lower()
