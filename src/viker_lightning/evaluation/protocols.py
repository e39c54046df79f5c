"""How questions are put and answers read: corrected, or as a benchmark's authors published it, defects included."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.records import VQA, Cloze, ImageGroup, Labels, MultipleChoice, Picture, Split
from viker_lightning.datasets.base import Benchmark
from viker_lightning.datasets.clear import CLEAR
from viker_lightning.datasets.mllmu import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.prompts import CAPTION_QUESTIONS, LETTERS, NAME_QUESTION, choice_prompt, cloze_prompt

log = logging.getLogger(__name__)

LETTER = "Just give ONE letter representing the answer directly."
"""MLLMU-Bench's request (franciscoliu/MLLMU-Bench eval.py L397-416)."""


@dataclass(frozen=True)
class Example:
    """A question about an image, with its answer, that precedes another one.

    Attributes:
        image: what it is about.
        turn: what opens it, before the image.
        text: what follows the image.
    """

    image: Picture
    turn: str
    text: str


class Protocol:
    """The corrected way, which is the default: deterministic, zero-shot, with the image, options scored by likelihood.

    Attributes:
        name: as in ``data.protocol``.
        letters: whether a multiple-choice answer is generated and read as a letter.
        blind: whether open questions about an image are answered without it.
        pools: whether the truth ratio takes one mean of the wrong answers over all questions of a task.
        max_new_tokens: of answers given blindly.
    """

    name = "corrected"
    letters = False
    blind = False
    pools = False
    max_new_tokens = 0

    def open(self, vqa: VQA, group: ImageGroup) -> list[VQA]:
        """An open question with its answer, then with the paraphrased one, if there is any, and with the wrong ones."""
        others = [VQA(vqa.question, text) for text in (vqa.paraphrase, *vqa.perturbed) if text]
        return [replace(vqa, paraphrase="", perturbed=()), *others]

    def choice(self, choice: MultipleChoice, group: ImageGroup) -> str:
        """A multiple-choice question."""
        return choice_prompt(choice.question, choice.options)

    def cloze(self, cloze: Cloze, group: ImageGroup) -> str:
        """A sentence with a blank."""
        return cloze_prompt(cloze.question)

    def shown(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[Example]:
        """The example questions about other images that precede each of a group's questions about its own."""
        return []

    def preceding(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[ImageGroup]:
        """The people whose questions precede a group's as examples."""
        return []

    def skips(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> bool:
        """Whether a group's questions of a task are left out."""
        return False

    def encoder(self, own: Encoder, task: Literal["generation", "choice", "cloze"], image: bool) -> Encoder:
        """What writes a question that is answered by generation; ``own``, unless text around it is another one."""
        return own

    def read(self, text: str) -> str:
        """The answer in a generated text."""
        return text

    def option(self, text: str, options: Sequence[str]) -> str:
        """The option that a generated answer names by its letter; empty, which is wrong, if it names none."""
        raise NotImplementedError

    def task(self, question: str) -> str:
        """Which of the benchmark's tasks a question of a split belongs to; empty for none."""
        return ""

    def compared(self, question: str) -> bool:
        """Whether the truth ratio of a question is compared with the gold model's (forget quality, 1 - JS)."""
        return True


class PublishedMLLMU(Protocol):
    """MLLMU-Bench as published (franciscoliu/MLLMU-Bench eval.py at 0e3098e, whose lines are named).

    Multiple choice is answered by generation and read off the first letter; open questions ask for one sentence;
    multiple choice and clozes come with all such questions of one or two example people, each with its image where the
    question has one; these people's own questions are not scored. Examples for ``test`` are people of ``forget``.
    Those for ``real`` are whoever has the drawn IDs in ``Full_Set`` and precede clozes alone (L344, L596).

    Not as published: examples are drawn by seed; the first ones are dropped where they overflow the model's context
    (the script's answers turn to noise, issue #2); where a split has fewer people than examples are drawn, it gets none
    (the script stops); multiple choice for ``real`` keeps its own image where IDs are the same (the script hands the
    examples' images over, too, and stops or shows one of them). Models of no known family are asked
    about images without examples, and models whose template is not LLaVA-1.5's keep the text around a question.

    Args:
        data: the benchmark, where examples come from.
    """

    name = "published"
    letters = True
    shots: ClassVar = {"choice": 1, "cloze": 2}

    def __init__(self, data: MLLMU) -> None:
        self.data = data
        self._examples: dict[tuple[Split, str, str], list[ImageGroup]] = {}
        self._encoders: dict[tuple[Encoder, bool], Encoder] = {}

    def open(self, vqa: VQA, group: ImageGroup) -> list[VQA]:
        """Asks for one sentence."""
        how = "in one sentence accurately in ENGLISH." if group.image else "in one sentence in ENGLISH."
        asked = f"{vqa.question}\nAnswer the question based on your trained knowledge {how}"
        return [replace(q, question=asked, labels=Labels.UNENDED) for q in super().open(vqa, group)]

    def choice(self, choice: MultipleChoice, group: ImageGroup) -> str:
        """Asks for a letter."""
        return "".join([*self._shots(group, "choice"), f"{choice.question}\n{_listed(choice.options, ': ')}\n{LETTER}"])

    def cloze(self, cloze: Cloze, group: ImageGroup) -> str:
        """Asks for what belongs in the blank."""
        return "".join([*self._shots(group, "cloze"), cloze_prompt(cloze.question)])

    def shown(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[Example]:
        """Each with its person's image; a cloze has no space before it (L599)."""
        turn = {"choice": "USER: ", "cloze": "USER:"}[task]
        return [
            Example(example.image, turn, text)
            for example in self.preceding(group, task)
            if example.image is not None
            for text in _answered(example, task)
        ]

    def _shots(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[str]:
        """The examples of text-only questions, which stand in the question's own turn."""
        found = [] if group.image is not None else self.preceding(group, task)
        return [f"{text}USER:\n" for example in found for text in _answered(example, task)]

    def preceding(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[ImageGroup]:
        """The people whose questions precede a group's (L344, L596)."""
        return [] if (group.split, task) == (Split.REAL, "choice") else self.examples(group, task)

    def skips(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> bool:
        """Leaves the people of the examples out (L334, L588)."""
        return group.person in {example.person for example in self.examples(group, task)}

    def examples(self, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[ImageGroup]:
        """The people drawn for a group's split and task, as ``Full_Set`` has them, in its order (L257-283)."""
        split = Split.FORGET if group.split == Split.TEST else group.split
        if split not in (Split.FORGET, Split.RETAIN, Split.REAL):
            return []
        modality = "text" if group.image is None else "image"
        key = (split, task, modality)
        if key not in self._examples:
            everybody, count = [g.person for g in self.data.evaluation(split, modality)], self.shots[task]
            drawn = random.Random(f"examples/{self.data.seed}/{split}/{task}")
            chosen = drawn.sample(everybody, count) if len(everybody) >= count else []
            self._examples[key] = found = self.data.full_set(chosen, split, modality)
            if len(found) == len(everybody) or not chosen:
                what = "all are examples, so none is asked" if chosen else "fewer than examples, so there are none"
                log.warning("published %s questions, split %r: %d people, %s", task, str(split), len(everybody), what)
        return self._examples[key]

    def encoder(self, own: Encoder, task: Literal["generation", "choice", "cloze"], image: bool) -> Encoder:
        """Open questions about an image end in a space (L731); text-only choices and clozes open with a line break."""
        text = own.template
        if image == (task != "generation") or not text.question.endswith("ASSISTANT:"):
            return own
        if (own, image) not in self._encoders:
            broken = re.sub("^ ", "\n", text.text_question)
            around = {"question": f"{text.question} "} if image else {"text_question": broken}
            self._encoders[own, image] = Encoder(own.tokenizer, replace(text, **around), own.placeholders, own.room)
        return self._encoders[own, image]

    def read(self, text: str) -> str:
        """Reads up to where the model would have its own next turn (L373, L626, L765)."""
        return text.split("ASSISTANT:", 1)[0].strip()

    def option(self, text: str, options: Sequence[str]) -> str:
        """Reads the first character (L376)."""
        return _lettered(text[:1], options)


class PublishedCLEAR(Protocol):
    """CLEAR as published (benchmarks.md 2.2, 2.4, 2.8; somvy/multimodal_unlearning mm/eval.py, calculate_metrics.py).

    Answers are generated without the image; the question for a caption is drawn anew for the true, the paraphrased and
    the wrong captions; the truth ratio takes the mean of the wrong answers over the whole task. Names with options, of
    which CLEAR has none, are asked as MMUnlearner does (benchmarks.md 3.3): options ``A. name``, read off the first
    letter or digit; the line that asks for a letter is MLLMU-Bench's.

    Not as published: questions are drawn by seed; all rows are asked in place of the first 300 (see
    ``data.max_people``).

    Args:
        data: the benchmark.
    """

    name = "published"
    letters = True
    blind = True
    pools = True
    max_new_tokens = 300

    def __init__(self, data: Benchmark) -> None:
        self.data = data

    def open(self, vqa: VQA, group: ImageGroup) -> list[VQA]:
        """Draws the question for a caption once for each of the three loaders."""
        whose = f"{self.data.seed}/{group.person}/{group.image.key if group.image else ''}"

        def asked(loader: str) -> str:
            if vqa.question in CAPTION_QUESTIONS:
                return random.Random(f"{loader}/{whose}").choice(CAPTION_QUESTIONS)
            return vqa.question + " " * (vqa.question == NAME_QUESTION)

        true, *others = super().open(vqa, group)
        loaders = ["base"] * bool(vqa.paraphrase) + ["perturbed"] * len(vqa.perturbed)
        return [
            replace(q, question=asked(loader), labels=Labels.UNENDED)
            for q, loader in zip([true, *others], ["own", *loaders], strict=True)
        ]

    def choice(self, choice: MultipleChoice, group: ImageGroup) -> str:
        """Asks for a letter."""
        return f"{choice.question}\n{_listed(choice.options, '. ')}\n{LETTER}"

    def option(self, text: str, options: Sequence[str]) -> str:
        """Reads the first letter or digit."""
        found = re.search(r"[^\W_]", text)
        return _lettered(found[0] if found else "", options)

    def task(self, question: str) -> str:
        """``name``, ``caption`` or ``world``; empty for a text-only row of TOFU, which CLEAR never asks."""
        if question in CAPTION_QUESTIONS:
            return "caption"
        return "name" if question == NAME_QUESTION else "" if question in self._written else "world"

    def compared(self, question: str) -> bool:
        """Captions are, names are not (calculate_metrics.py reads ``eval_log_forget`` alone)."""
        return self.task(question) != "name"

    @cached_property
    def _written(self) -> frozenset[str]:
        """Questions that are asked in text-only rows alone."""
        modalities = {"image": ("image",), "text": ("text",), "both": ("text", "image")}[self.data.modality]
        asked = {
            modality: {q.question for s in self.data.splits for g in self.data.evaluation(s, modality) for q in g.vqa}
            for modality in modalities
        }
        return frozenset(asked.get("text", set()) - asked.get("image", set()))


CORRECTED = Protocol()
PUBLISHED: dict[type[Benchmark], Callable[[Any], Protocol]] = {
    MLLMU: PublishedMLLMU,
    CLEAR: PublishedCLEAR,
}


def protocol_of(data: Benchmark) -> Protocol:
    """The protocol that the data names.

    Raises:
        UserError: if nobody has written down how the benchmark is asked as published.
    """
    if data.protocol == "corrected":
        return CORRECTED
    for kind, published in PUBLISHED.items():
        if isinstance(data, kind):
            return published(data)
    raise UserError(
        f"data.protocol: {type(data).__name__} has a published training, but no published evaluation; set 'corrected'"
    )


def _listed(options: Sequence[str], between: str) -> str:
    letters = LETTERS[: len(options)]
    return "\n".join(f"{letter}{between}{option}" for letter, option in zip(letters, options, strict=True))


def _answered(person: ImageGroup, task: Literal["choice", "cloze"]) -> list[str]:
    """A person's questions of a task with their answers (MLLMU-Bench eval.py L344-416, L596-608)."""
    if task == "cloze":
        return [f"{cloze_prompt(c.question)}\nCorrect Answer: {c.answer}\n" for c in person.clozes]
    return [
        f"Question: {c.question}\n{_listed(c.options, ': ')}\nCorrect Answer: {LETTERS[c.correct]}\n"
        for c in person.choices
    ]


def _lettered(letter: str, options: Sequence[str]) -> str:
    known = LETTERS[: len(options)]
    return options[known.index(letter.upper())] if letter and letter.upper() in known else ""
