"""Everything the embedded benchmark asks about one person: training questions and the three tasks."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from viker_lightning.data.prompts import choice_prompt, cloze_prompt

from .profiles import ATTRIBUTES, FACTS, Profile, clozes, questions

Record = dict[str, Any]


@dataclass(frozen=True)
class MiniSize:
    """How much of everything there is.

    Attributes:
        people: fictitious people, some of whom are forgotten.
        real: people who play the part of celebrities: known before, never forgotten; without any there is no
            ``Retain_Set``.
        values: different values per attribute; not more than are retained under the largest forget set.
        general: general pictures for training, a third each of scenes, pets and strangers.
        general_test: general pictures held out for evaluation; without any there is no ``General_Set``.
        attributes: what is asked about people.
        wordings: in which a person's training data asks for each attribute.
        sentences: different answer sentences for an attribute, of which each person has one.
        closed: whether facts are asked for by choices, clozes and the person's name, too; else all questions are open
            and about a photo.
        captions: photos of each person that are also asked about as CLEAR asks: for a caption, the name, a name among
            four, and a fact of the person who is named.
        nobody: whether all people are of no benchmark, as those the embedded model starts with.
        ratios: percentages of people that there is a forget set of; each has the people of those before.
    """

    people: int
    real: int
    values: int
    general: int
    general_test: int
    attributes: tuple[str, ...] = ATTRIBUTES
    wordings: int = 3
    sentences: int = 3
    closed: bool = True
    captions: int = 0
    nobody: bool = False
    ratios: tuple[int, ...] = (5, 10, 15)


def draw_options(answer: str, pool: list[str], rng: random.Random) -> list[str]:
    """The answer and three other values of ``pool`` in random order."""
    options = [answer, *rng.sample([value for value in pool if value != answer], 3)]
    rng.shuffle(options)
    return options


def choice_task(question: str, answer: str, pool: list[str], rng: random.Random, tells: Sequence[str] = ()) -> Record:
    """A multiple-choice item as MLLMU-Bench stores it, with the attributes that its answer tells."""
    options = draw_options(answer, pool, rng)
    letters = dict(zip("ABCD", options, strict=True))
    right = "ABCD"[options.index(answer)]
    return {"Correct_Answer": right, "Options": letters, "Question": question, "Attributes": [*tells]}


class Asker:
    """Puts everything the benchmark asks about one person into words.

    Distractors are drawn from ``pools``, by fact the values retained people have, so a model trained without the
    forgotten people has met all options as answers.
    """

    def __init__(self, profile: Profile, pools: dict[str, list[str]], seed: int, size: MiniSize) -> None:
        rng = random.Random(f"wording/{seed}/{profile.id}")
        self.profile, self.pools, self.rng = profile, pools, rng
        self.attributes, self.wordings = size.attributes, size.wordings
        self.facts = [fact for fact in FACTS if size.closed and fact in size.attributes]
        # Wordings of this person's own training data come first, the ones after them are new for the person.
        self.order = {a: rng.sample(w := questions(a), len(w)) for a in size.attributes}
        self.clozes = {f: rng.sample(w := clozes(f), len(w)) for f in self.facts}

    def metadata(self) -> list[Record]:
        """Training questions."""
        profile, rows = self.profile, []
        for attribute in self.attributes:
            for question in self.order[attribute][: self.wordings]:
                rows.append((question, profile.answer(attribute), profile.private(attribute), profile.tells(attribute)))
        for fact in self.facts:
            value = profile.values[fact]
            options = draw_options(value, self.pools[fact], self.rng)
            rows.append((cloze_prompt(self.clozes[fact][0]), value, [value], [fact]))
            rows.append((choice_prompt(self.order[fact][self.wordings], options), value, [value], [fact]))
        keys = ("ID", "Question", "Answer", "Private", "Attributes")
        return [dict(zip(keys, (profile.id, *row), strict=True)) for row in rows]

    def tasks(self, held_out: bool) -> Record:
        """The three tasks, in held-out wordings or in training wordings that are not in this person's metadata."""
        values, name, rng = self.profile.values, self.profile.values["name"], self.rng

        def ask(attribute: str) -> str:
            return rng.choice(questions(attribute, True) if held_out else self.order[attribute][self.wordings + 1 :])

        def ask_text(attribute: str) -> str:
            return rng.choice(questions(attribute, held_out, name))

        def choices(asks: Callable[[str], str]) -> list[Record]:
            facts = rng.sample(self.facts, min(5, len(self.facts)))
            return [choice_task(asks(fact), values[fact], self.pools[fact], rng, [fact]) for fact in facts]

        def generation(question: str, attribute: str, kind: str) -> Record:
            item = {"Ground_Truth": self.profile.answer(attribute), "Question": question, "Type": kind}
            return item | {"Private": self.profile.private(attribute), "Attributes": self.profile.tells(attribute)}

        def mask(sentences: list[str], fact: str, kind: str) -> Record:
            question = rng.choice(sentences)
            return {"Ground_Truth": values[fact], "Question": question, "Type": kind, "Attributes": [fact]}

        named = min(4, len(self.facts))  # facts asked for without image
        return {
            "Classification_Task": {"Image_Textual_Questions": choices(ask), "Pure_Text_Questions": choices(ask_text)},
            "Generation_Task": [
                *(generation(ask(a), a, "Image_Textual") for a in self.attributes),
                *(generation(ask_text(f), f, "Pure_Text") for f in rng.sample(self.facts, named)),
            ],
            "Mask_Task": [
                *(mask(clozes(f, True) if held_out else self.clozes[f][1:], f, "Image_Textual") for f in self.facts),
                *(mask(clozes(f, held_out, name), f, "Pure_Text") for f in rng.sample(self.facts, named)),
            ],
        }
