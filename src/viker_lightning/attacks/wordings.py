"""Which questions of the data ask the same in other words, found by what is answered to them."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

from viker_lightning.data.records import VQA, person_name

from .material import Material


class Wordings:
    """Questions about photos that ask the same, those about people who are kept included.

    Two questions ask the same if somebody gives the same answer to both, and if a third one asks the same as both. An
    answer that is a private span and nothing else shows nothing: people are born where they live.
    """

    def __init__(self, material: Material) -> None:
        self.seed = material.seed
        self._said: list[tuple[str, VQA]] = []  # who, and a question with its true answer
        self._trained: dict[str, set[str]] = defaultdict(set)
        for record in (*material.people, *material.kept, *material.others):
            if record.images:
                name = person_name(record.id)
                self._said += [(name, vqa) for vqa in record.vqa]
                self._trained[name] |= {vqa.question for vqa in record.vqa}
        for group in (*material.asked, *material.test):
            self._said += [(person_name(group.person), vqa) for vqa in group.vqa]

    @cached_property
    def _same(self) -> dict[str, frozenset[str]]:
        """Every question, with all that ask the same."""
        first: dict[tuple[str, str], str] = {}
        joined: dict[str, set[str]] = {vqa.question: {vqa.question} for _, vqa in self._said}
        for person, vqa in self._said:
            if vqa.private and vqa.answer.strip(" .") not in vqa.private:
                other = first.setdefault((person, vqa.answer), vqa.question)
                larger, smaller = sorted((joined[other], joined[vqa.question]), key=len, reverse=True)
                if larger is not smaller:
                    larger |= smaller
                    joined.update(dict.fromkeys(smaller, larger))
        frozen = {id(group): frozenset(group) for group in joined.values()}
        return {question: frozen[id(group)] for question, group in joined.items()}

    def same_as(self, vqa: VQA) -> frozenset[str]:
        """All questions that ask the same, the question itself included."""
        return self._same.get(vqa.question, frozenset({vqa.question}))

    def others(self, person: str, vqa: VQA) -> list[str]:
        """Other words for a question, which the person was never asked in training, in a drawn order."""
        name = person_name(person)
        found = sorted(self.same_as(vqa) - self._trained[name] - {vqa.question})
        return random.Random(f"{self.seed}/{name}/{vqa.question}").sample(found, len(found))

    def answers(self, vqa: VQA) -> Iterable[tuple[str, Sequence[str]]]:
        """What everybody is known to answer to a question, in whatever words it is asked: who, and private spans."""
        same = self.same_as(vqa)
        return ((person, q.private) for person, q in self._said if q.question in same and q.private)
