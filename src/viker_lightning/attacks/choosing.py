"""A choice among spans: is the true one still the likeliest, even where it is no longer said?"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from viker_lightning.data.records import VQA, ImageGroup, MultipleChoice, Split, person_name
from viker_lightning.errors import UserError
from viker_lightning.evaluation import predict
from viker_lightning.models import MLLM, split_to_budget

from .attempt import Attempt, Whose, hit
from .base import Attack, ask
from .material import Material
from .subject import Subject
from .wordings import Wordings

CHOICE = "a choice among spans"
Options = tuple[VQA, Sequence[VQA]]
"""A question with its true answer, and with wrong ones."""

LIKELIEST, LISTED = "likeliest of the answers", "likeliest of those listed"


@dataclass(frozen=True)
class ChooseSpan(Attack):
    """Has the model choose between the true private span and those of other people for the same question.

    ``likeliest of the answers``: the true answer with each span in its place, by the probability of the whole text;
    the question does not say what there is to choose from. ``likeliest of those listed``: the question lists them, as
    in multiple choice. A hit is that the true one is likeliest: nobody says a span here. Chance is one in ``options``,
    for every question, since those with fewer options are left out; wrong answers of the data fill up what other
    people's spans leave open. A template may fit some spans better than others (``a`` and ``an``); gold and the people
    who are kept are asked the same.

    Args:
        options: how many there are to choose from, the true one included.
    """

    name = "choose"
    about = "whether the true span is likelier than those of other people for the same question; nothing is said"
    source = "options by likelihood as the project scores multiple choice; spans of other people in place of MLLMU's"
    says = False

    options: int = 4

    def __post_init__(self) -> None:
        if self.options < 2:
            raise UserError(f"choose.options: found {self.options}, expected at least 2")

    @override
    @classmethod
    def quick(cls) -> ChooseSpan:
        return cls()

    @override
    def parts(self) -> list[str]:
        return [self.clean, CHOICE]

    @override
    def numbers(self, found: Sequence[Attempt]) -> dict[str, float]:
        """What guessing gives."""
        return {"chance": 1 / self.options} if any(one.series != self.clean for one in found) else {}

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        mllm = subject.load()
        if part == self.clean:
            return ask(mllm, material.asked, self.clean)
        wordings = Wordings(material)
        asked: list[tuple[ImageGroup, Sequence[Options]]] = []
        for group in material.asked:
            chosen = [(q, wrong_answers(wordings, group, q, self.options - 1, material.seed)) for q in group.vqa]
            enough: list[Options] = [(q, wrong) for q, wrong in chosen if len(wrong) == self.options - 1]
            if enough:
                asked.append((group, enough))
        return [*_by_likelihood(mllm, asked), *_listed(mllm, asked, material.seed)]


def wrong_answers(wordings: Wordings, group: ImageGroup, vqa: VQA, count: int, seed: int) -> list[VQA]:
    """The answer with other people's private spans in place of its own, each once, drawn; then wrong ones of the data.

    Spans are put in one for one, so people whose answer has another number of them are left out, and so are those who
    share one with the true answer.
    """
    mine = {span.casefold() for span in vqa.private}
    others = {
        tuple(private)
        for person, private in wordings.answers(vqa)
        if person != person_name(group.person)
        and len(private) == len(vqa.private)
        and not mine & {span.casefold() for span in private}
    }
    drawn = random.Random(f"{seed}/{group.person}/{vqa.question}").sample(sorted(others), len(others))
    swapped = [VQA(vqa.question, swap_spans(vqa.answer, vqa.private, spans), spans) for spans in drawn]
    given = [VQA(vqa.question, text) for text in vqa.perturbed if not hit(text, vqa.private)]
    distinct = {q.answer: q for q in reversed([*swapped, *given])}
    return list(reversed(distinct.values()))[:count]


def swap_spans(answer: str, private: Sequence[str], others: Sequence[str]) -> str:
    """An answer with other spans in place of its private ones, all at once, wherever they stand as words."""
    instead = dict(zip(private, others, strict=True))
    longest = sorted(private, key=len, reverse=True)
    return re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", lambda found: instead[found[0]], answer)


def _by_likelihood(mllm: MLLM, asked: Sequence[tuple[ImageGroup, Sequence[Options]]]) -> list[Attempt]:
    """Attempts by the probability of whole answers."""
    groups = [
        replace(group, vqa=tuple(replace(q, paraphrase="", perturbed=()) for o in questions for q in (o[0], *o[1])))
        for group, questions in asked
    ]
    sums: list[float] = []
    private: list[float] = []
    with mllm.evaluating():
        for part in split_to_budget(mllm, groups):
            tokens = mllm.answer_tokens(mllm.pack(part))
            sums += tokens.sum_by_question(tokens.log_probs).tolist()
            told = tokens.sum_by_question(tokens.log_probs.exp() * tokens.private)
            private += (told / tokens.sum_by_question(tokens.private.float()).clamp_min(1)).tolist()
    found, first = [], 0
    for group, questions in asked:
        for true, wrong in questions:
            mine, *theirs = sums[first : first + 1 + len(wrong)]
            best = max(range(len(theirs)), key=theirs.__getitem__)
            won = mine > theirs[best]
            whose, said = _whose(group), true.answer if won else wrong[best].answer
            about = (LIKELIEST, None, whose, group.person, true.question, true.private)
            found.append(Attempt(*about, said, float(won), private[first]))
            first += 1 + len(wrong)
    return found


def _listed(mllm: MLLM, asked: Sequence[tuple[ImageGroup, Sequence[Options]]], seed: int) -> list[Attempt]:
    """Attempts where the question lists the options: spans, or answers where there are several spans in one."""
    groups, about = [], []
    for group, questions in asked:
        choices = []
        for true, wrong in questions:
            short = all(len(q.private) == 1 for q in (true, *wrong))
            texts = [q.private[0] if short else q.answer for q in (true, *wrong)]
            order = random.Random(f"{seed}/{group.person}/{true.question}/listed").sample(range(len(texts)), len(texts))
            choices.append(MultipleChoice(true.question, tuple(texts[i] for i in order), order.index(0)))
            about.append((LISTED, None, _whose(group), group.person, true.question, true.private))
        groups.append(replace(group, vqa=(), choices=tuple(choices), clozes=()))
    predictions = predict(mllm, groups)
    return [Attempt(*a, p.answer, float(p.answer == p.reference)) for a, p in zip(about, predictions, strict=True)]


def _whose(group: ImageGroup) -> Whose:
    return "retain" if group.split == Split.RETAIN else "forget"
