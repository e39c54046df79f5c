"""A choice among spans, or names: is the true one still the likeliest, even where it is no longer said?"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt, Whose, hit
from viker_lightning.attacks.base import Attack, ask
from viker_lightning.attacks.material import PUNCTUATION, Material, heard
from viker_lightning.attacks.subject import Subject
from viker_lightning.attacks.wordings import Wordings
from viker_lightning.data.person_names import names_of
from viker_lightning.data.prompts import CHOICE_QUESTION
from viker_lightning.data.records import VQA, ImageGroup, MultipleChoice, Split, person_name
from viker_lightning.errors import check_least
from viker_lightning.evaluation import predict
from viker_lightning.models import MLLM, split_to_budget

CHOICE, NAMES = "a choice among spans", "a choice among names"
Options = tuple[VQA, Sequence[VQA]]
"""A question with its true answer, and with wrong ones."""

LIKELIEST, LISTED, NAMED = "likeliest of the answers", "likeliest of those listed", "likeliest of the names listed"


@dataclass(frozen=True)
class ChooseSpan(Attack):
    """Has the model choose between the true private span, or name, and those of other people.

    ``likeliest of the answers``: the true answer with each span in its place, by the probability of the whole text;
    the question does not say what there is to choose from. ``likeliest of those listed``: the question lists them, as
    in multiple choice. ``likeliest of the names listed``: who is on the photo, by names of people of the data in place
    of spans. A hit is that the true one is likeliest: nobody says a span here. Chance is one in ``options``, for every
    question, since those with fewer options are left out; wrong answers of the data fill up what other people's spans
    leave open. A template may fit some spans better than others (``a`` and ``an``); gold and the people who are kept
    are asked the same.

    Every model prefers words it has heard. So where the people who are kept are trained on all words of the true span,
    they are on those of the wrong ones, too, and where they are not, neither are they on those: else gold, which never
    heard a span, would do worse than guessing, and a model that merely knows the words would seem to remember.

    Args:
        options: how many there are to choose from, the true one included.
    """

    name = "choose"
    about = "whether the true span, or name, is likelier than those of other people; nothing is said"
    source = (
        "options by likelihood as the project scores multiple choice; spans of other people in place of MLLMU's; names "
        "as options: Z1zs/MMUnlearner CLEAR_eval.py L196-211, who is it: XMUDeepLIT/VLM-UnL-Attack a47751b"
    )
    says = False
    conditions = (Attack.clean, CHOICE, NAMES)

    options: int = 4

    def __post_init__(self) -> None:
        check_least("choose", 2, options=self.options)

    @override
    def numbers(self, found: Sequence[Attempt]) -> dict[str, float]:
        """What guessing gives."""
        return {"chance": 1 / self.options} if any(one.series != self.clean for one in found) else {}

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        mllm = subject.load()
        if part == self.clean:
            return ask(mllm, material.asked, self.clean)
        asked = self._names(material) if part == NAMES else self._spans(material)
        if part == NAMES:
            return _listed(mllm, asked, material.seed, NAMED)
        return [*_by_likelihood(mllm, asked), *_listed(mllm, asked, material.seed, LISTED)]

    def _spans(self, material: Material) -> list[tuple[ImageGroup, Sequence[Options]]]:
        """The questions with spans of others, those that have enough of them."""
        wordings, words = Wordings(material), heard(material.data)
        return self._with_enough(
            (group, [(q, wrong_answers(wordings, group, q, self.options - 1, material.seed, words)) for q in group.vqa])
            for group in material.asked
        )

    def _names(self, material: Material) -> list[tuple[ImageGroup, Sequence[Options]]]:
        """Who is on each photo, with names of others."""
        names, words = names_in(material), heard(material.data)
        return self._with_enough(
            (group, [(_name(names[who]), other_names(names, words, who, self.options - 1, material.seed))])
            for group in material.asked
            if group.image is not None and (who := person_name(group.person)) in names
        )

    def _with_enough(
        self, asked: Iterable[tuple[ImageGroup, Sequence[Options]]]
    ) -> list[tuple[ImageGroup, Sequence[Options]]]:
        enough = [(group, [(q, wrong) for q, wrong in some if len(wrong) == self.options - 1]) for group, some in asked]
        return [(group, some) for group, some in enough if some]


def names_in(material: Material) -> dict[str, str]:
    """What everybody of the data is called."""
    people = [(p.id, p.vqa) for p in (*material.people, *material.kept, *material.others)]
    return names_of([*people, *((group.person, group.vqa) for group in material.asked)])


def other_names(names: Mapping[str, str], words: set[str], person: str, count: int, seed: int) -> list[VQA]:
    """Names of other people as wrong answers, drawn."""
    mine, known = names[person], all_in(words, [names[person]])
    others = sorted({n for n in names.values() if not hit(n, [mine]) and all_in(words, [n]) == known})
    return [_name(n) for n in random.Random(f"{seed}/{person}/names").sample(others, min(count, len(others)))]


def all_in(words: set[str], texts: Iterable[str]) -> bool:
    """Whether all words of some texts are among some, punctuation aside."""
    return all(word.strip(PUNCTUATION) in words for text in texts for word in text.split())


def _name(name: str) -> VQA:
    return VQA(CHOICE_QUESTION, name, (name,))


def wrong_answers(
    wordings: Wordings, group: ImageGroup, vqa: VQA, count: int, seed: int, words: set[str] | None = None
) -> list[VQA]:
    """The answer with other people's private spans in place of its own, each once, drawn; then wrong ones of the data.

    Spans are put in one for one, so people whose answer has another number of them are left out, and so are those who
    share one with the true answer. Where a span stands only within another (``John Smith`` and ``Smith``), those of
    somebody whose second span is no part of the first are left out, too: it would stand nowhere. All that a wrong
    answer says otherwise is among ``words`` if that is so of the true spans, and not if not; by default it may say
    anything.
    """

    def alike(texts: Iterable[str], beside: Iterable[str] = ()) -> bool:
        return words is None or all_in(words.union(beside), texts) == all_in(words, vqa.private)

    mine = {span.casefold() for span in vqa.private}
    others = {
        tuple(private)
        for person, private in wordings.answers(vqa)
        if person != person_name(group.person)
        and len(private) == len(vqa.private)
        and not mine & {span.casefold() for span in private}
        and alike(private)
    }
    drawn = random.Random(f"{seed}/{group.person}/{vqa.question}").sample(sorted(others), len(others))
    swapped = [VQA(vqa.question, swap_spans(vqa.answer, vqa.private, spans), spans) for spans in drawn]
    swapped = [q for q in swapped if all(re.search(_as_words([span]), q.answer) for span in q.private)]
    same = {word.strip(PUNCTUATION) for word in vqa.answer.split()}
    given = [VQA(vqa.question, text) for text in vqa.perturbed if not hit(text, vqa.private)]
    given = [q for q in given if alike([q.answer], same)]
    distinct = {q.answer: q for q in reversed([*swapped, *given])}
    return list(reversed(distinct.values()))[:count]


def swap_spans(answer: str, private: Sequence[str], others: Sequence[str]) -> str:
    """An answer with other spans in place of its private ones, all at once, wherever they stand as words."""
    instead = dict(zip(private, others, strict=True))
    return re.sub(_as_words(private), lambda found: instead[found[0]], answer)


def _as_words(spans: Iterable[str]) -> str:
    """A pattern that finds any of some spans where it stands as words, the longest first."""
    longest = sorted(spans, key=len, reverse=True)
    return rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)"


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


def _listed(mllm: MLLM, asked: Sequence[tuple[ImageGroup, Sequence[Options]]], seed: int, series: str) -> list[Attempt]:
    """Attempts where the question lists the options: spans, or answers where there are several spans in one."""
    groups, about = [], []
    for group, questions in asked:
        choices = []
        for true, wrong in questions:
            short = all(len(q.private) == 1 for q in (true, *wrong))
            texts = [q.private[0] if short else q.answer for q in (true, *wrong)]
            order = random.Random(f"{seed}/{group.person}/{true.question}/listed").sample(range(len(texts)), len(texts))
            choices.append(MultipleChoice(true.question, tuple(texts[i] for i in order), order.index(0)))
            about.append((series, None, _whose(group), group.person, true.question, true.private))
        groups.append(replace(group, vqa=(), choices=tuple(choices), clozes=()))
    predictions = predict(mllm, groups)
    return [Attempt(*a, p.answer, float(p.answer == p.reference)) for a, p in zip(about, predictions, strict=True)]


def _whose(group: ImageGroup) -> Whose:
    return "retain" if group.split == Split.RETAIN else "forget"
