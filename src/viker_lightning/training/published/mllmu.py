"""MLLMU-Bench as published (franciscoliu/MLLMU-Bench at 0e3098e, whose lines are named)."""

import logging
import random
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from viker_lightning.data.datasets import MLLMU
from viker_lightning.data.encoding import Encoder
from viker_lightning.data.prompts import LETTERS, cloze_prompt
from viker_lightning.data.records import VQA, Cloze, ImageGroup, Labels, MultipleChoice, Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import ClosedTask, FewShotQuestion, Task
from viker_lightning.methods import NPO, Batch, GradientDifference, KLMinimization, Method
from viker_lightning.models import MLLM, Prompt, PromptPrefixes

from .base import LETTER_REQUEST, Published, list_options, option_of
from .few_shot import Example, fit_prompt, takes_examples

log = logging.getLogger(__name__)

SCRIPTS = (GradientDifference, KLMinimization, NPO)
"""Methods that the authors have a training script of."""


class PublishedMLLMU(Published):
    """MLLMU-Bench's scripts: data_preprocess.py, baselines/ and eval.py; lines without a file are of eval.py.

    **Training.** All text counts, no end of sequence (data_preprocess.py L355-374); of the text before the image all
    but the first token is counted, once for every question, as in the script. Whether image placeholders count depends
    on the processor that transformers 4.45.1 finds: one saved without ``patch_size`` has the model put the image in,
    which leaves them out; one saved with it writes a placeholder for every position, and all of them are labels.
    ``data.image_labels`` says which; docs/protocols.md has what it changes.

    **Evaluation.** Multiple choice is answered by generation and read off the first letter; open questions ask for one
    sentence; multiple choice and clozes come with all such questions of one or two example people, each with its image
    where the question has one; these people's own questions are not scored. Examples for ``test`` are people of
    ``forget``. Those for ``real`` are whoever has the drawn IDs in ``Full_Set`` and precede clozes alone (L344, L596).

    Not as published: examples are drawn by seed; the first ones are dropped where they overflow the model's context
    (the script's answers turn to noise, issue #2); where a split has fewer people than examples are drawn, it gets none
    (the script stops); multiple choice for ``real`` keeps its own image where IDs are the same (the script hands the
    examples' images over, too, and stops or shows one of them). Models without a file in models/families are asked
    about images without examples, and models whose template is not LLaVA-1.5's keep the text around a question.

    Args:
        data: the benchmark, where examples come from.
    """

    labels = Labels.TEXT
    example_count: ClassVar[dict[ClosedTask, int]] = {"choice": 1, "cloze": 2}

    def __init__(self, data: MLLMU) -> None:
        self.data = data
        self._examples: dict[tuple[Split, str, str], list[ImageGroup]] = {}
        self._encoders: dict[tuple[Encoder, bool], Encoder] = {}

    @property
    @override
    def placeholders(self) -> bool:
        return self.data.image_labels

    @override
    def objective(self, method: Method) -> Method:
        """A method as the authors' script has it; a subclass of one of theirs is another method, and stays itself."""
        if type(method) is GradientDifference:  # L409-441 of baselines/GA_Difference.py: two passes, not one sum
            method = copy(method)
            method.in_passes = True
        elif type(method) is KLMinimization:
            return PublishedKLMinimization(method.retain_weight)
        elif type(method) is NPO:
            return PublishedNPO(method.beta, method.retain_weight, method.gold)
        elif isinstance(method, SCRIPTS) and not isinstance(method, PublishedKLMinimization | PublishedNPO):
            name = type(method).__name__
            log.warning("data.protocol=published has no script of %s, which is trained with its own loss", name)
        return method

    @override
    def ask_open(self, vqa: VQA, group: ImageGroup) -> list[VQA]:
        how = "in one sentence accurately in ENGLISH." if group.image else "in one sentence in ENGLISH."
        question = f"{vqa.question}\nAnswer the question based on your trained knowledge {how}"
        return [replace(q, question=question, labels=Labels.UNENDED) for q in super().ask_open(vqa, group)]

    @override
    def ask_choice(self, choice: MultipleChoice, group: ImageGroup) -> str:
        question = f"{choice.question}\n{list_options(choice.options, ': ')}\n{LETTER_REQUEST}"
        return "".join([*self._text_examples(group, "choice"), question])

    @override
    def ask_cloze(self, cloze: Cloze, group: ImageGroup) -> str:
        return "".join([*self._text_examples(group, "cloze"), super().ask_cloze(cloze, group)])

    def _text_examples(self, group: ImageGroup, task: ClosedTask) -> list[str]:
        """The examples of text-only questions, which stand in the question's own turn."""
        people = [] if group.image is not None else self.preceding_people(group, task)
        return [f"{text}USER:\n" for person in people for text in answered_questions(person, task)]

    def image_examples(self, group: ImageGroup, task: ClosedTask) -> list[Example]:
        """The examples of questions about an image, each with its person's; a cloze has no space before it (L599)."""
        turn = {"choice": "USER: ", "cloze": "USER:"}[task]
        return [
            Example(person.image, turn, text)
            for person in self.preceding_people(group, task)
            if person.image is not None
            for text in answered_questions(person, task)
        ]

    def preceding_people(self, group: ImageGroup, task: ClosedTask) -> list[ImageGroup]:
        """The people whose questions precede a group's (L344, L596)."""
        return [] if (group.split, task) == (Split.REAL, "choice") else self.example_people(group, task)

    @override
    def skips(self, group: ImageGroup, task: ClosedTask) -> bool:
        """Leaves the people of the examples out (L334, L588)."""
        return group.person in {person.person for person in self.example_people(group, task)}

    def example_people(self, group: ImageGroup, task: ClosedTask) -> list[ImageGroup]:
        """The people drawn for a group's split and task, as ``Full_Set`` has them, in its order (L257-283)."""
        split = Split.FORGET if group.split == Split.TEST else group.split
        if split not in (Split.FORGET, Split.RETAIN, Split.REAL):
            return []
        modality = "text" if group.image is None else "image"
        key = (split, task, modality)
        if key not in self._examples:
            everybody, count = [g.person for g in self.data.evaluation(split, modality)], self.example_count[task]
            draw = random.Random(f"examples/{self.data.seed}/{split}/{task}")
            chosen = draw.sample(everybody, count) if len(everybody) >= count else []
            self._examples[key] = people = self.data.full_set(chosen, split, modality)
            if len(people) == len(everybody) or not chosen:
                what = "all are examples, so none is asked" if chosen else "fewer than examples, so there are none"
                log.warning("published %s questions, split %r: %d people, %s", task, str(split), len(everybody), what)
        return self._examples[key]

    @override
    def encoder(self, own: Encoder, task: Task, image: bool) -> Encoder:
        """Open questions about an image end in a space (L731); text-only choices and clozes open with a line break."""
        text = own.template
        if image == (task != "generation") or not text.question.endswith("ASSISTANT:"):
            return own
        if (own, image) not in self._encoders:
            broken = re.sub("^ ", "\n", text.text_question)
            around = {"question": f"{text.question} "} if image else {"text_question": broken}
            self._encoders[own, image] = Encoder(own.tokenizer, replace(text, **around), own.placeholders, own.room)
        return self._encoders[own, image]

    @override
    def is_few_shot(self, mllm: MLLM, group: ImageGroup, task: ClosedTask) -> bool:
        if group.image is None:
            return bool(self.preceding_people(group, task))
        return bool(self.image_examples(group, task)) and takes_examples(mllm)

    @override
    def answer_few_shot(
        self, prefixes: PromptPrefixes, questions: Sequence[FewShotQuestion], max_new_tokens: int
    ) -> list[str]:
        """Answers each question behind as many of its examples as fit, which are read once for all questions."""
        alike: dict[Hashable, dict[int, Prompt]] = defaultdict(dict)
        for i, question in enumerate(questions):
            prompt = self._prompt(prefixes.mllm, question, max_new_tokens)
            people = tuple(person.person for person in self.preceding_people(question.group, question.task))
            alike[question.task, people, question.group.image is None, len(prompt.pictures)][i] = prompt
        texts: dict[int, str] = {}
        for key, group in alike.items():
            texts |= zip(group, prefixes.answers(key, list(group.values()), max_new_tokens), strict=True)
        return [texts[i] for i in range(len(questions))]

    def _prompt(self, mllm: MLLM, question: FewShotQuestion, max_new_tokens: int) -> Prompt:
        image = question.group.image
        if image is None:  # its examples are in its text
            encoder = self.encoder(mllm.encoder, question.task, False)
            return Prompt([*mllm.prefix(None), *encoder.question(question.text, False).prompt])
        examples = self.image_examples(question.group, question.task)
        return fit_prompt(mllm, examples, image, question.text, max_new_tokens)

    @override
    def read_answer(self, text: str) -> str:
        """Reads up to where the model would have its own next turn (L373, L626, L765)."""
        return text.split("ASSISTANT:", 1)[0].strip()

    @override
    def read_option(self, text: str, options: Sequence[str]) -> str:
        """Reads the first character (L376)."""
        return option_of(text[:1], options)


def answered_questions(person: ImageGroup, task: ClosedTask) -> list[str]:
    """A person's questions of a task with their answers (L344-416, L596-608)."""
    if task == "cloze":
        return [f"{cloze_prompt(c.question)}\nCorrect Answer: {c.answer}\n" for c in person.clozes]
    return [
        f"Question: {c.question}\n{list_options(c.options, ': ')}\nCorrect Answer: {LETTERS[c.correct]}\n"
        for c in person.choices
    ]


class PublishedKLMinimization(KLMinimization):
    """The script: a pass of ``-CE_forget``, then one of ``CE_retain + retain_weight * KL``.

    The KL is summed over the tokens of a batch and divided by its questions alone (baselines/KL_Min.py L492-556), so
    that it grows with their length. Not as published: padding and image positions are left out of the sum.
    """

    in_passes = True

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over label tokens, and a mean over questions of sums over label tokens; nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain = batch.retain
        retain_ce = retain.mean(-retain.log_probs)
        retain_kl = retain.question_share(retain.sum_by_question(batch.kl("retain", "own")))
        loss = retain_ce + self.retain_weight * retain_kl - forget_ce
        return {"loss": loss, "forget_ce": forget_ce, "retain_ce": retain_ce, "retain_kl": retain_kl}


class PublishedNPO(NPO):
    """The script: ``L = -(2/beta) * logsigmoid(beta * (CE_forget - CE_gold))`` (baselines/NPO.py L256-266).

    The cross-entropies are means over all label tokens of a process's batch, so that questions do not count each for
    itself, and the reference is a model trained on the retain set.
    """

    whole_steps = True

    def __init__(self, beta: float = 0.4, retain_weight: float = 0.0, gold: str | None = None) -> None:
        super().__init__(beta, retain_weight, gold)
        if gold is None:
            raise UserError("NPO: data.protocol=published needs a reference trained on the retain set; set gold to it")
        if retain_weight > 0:
            raise UserError(f"NPO: data.protocol=published has no retain term, found retain_weight={retain_weight}")

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """NPO with one log-ratio, the mean over the answer tokens of the batch, where the paper has one an answer."""
        difference = (batch.reference("forget", self.reference).log_prob - batch.forget.log_probs).mean()
        loss = -2 / self.beta * F.logsigmoid(self.beta * difference)
        return {"loss": loss, "ce_difference": difference}
