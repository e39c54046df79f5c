"""How questions are put and answers read: the corrected way, and what a published one may do otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.prompts import choice_prompt, cloze_prompt
from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice
from viker_lightning.metrics.prediction import Prediction
from viker_lightning.models import MLLM, PromptPrefixes

ClosedTask = Literal["cloze", "choice"]
Task = Literal["generation", "cloze", "choice"]


@dataclass(frozen=True)
class FewShotQuestion:
    """A question that is answered behind examples.

    Attributes:
        group: whose it is.
        task: decides its examples.
        text: as the protocol asks it.
    """

    group: ImageGroup
    task: ClosedTask
    text: str


class Protocol:
    """The corrected way, which is the default: deterministic, zero-shot, with the image, options scored by likelihood.

    The ways of benchmarks' authors override it, see :mod:`viker_lightning.training.published`.

    Attributes:
        name: as in ``data.protocol``.
        letters: whether a multiple-choice answer is generated and read as a letter.
        blind: whether open questions about an image are answered without it.
        max_new_tokens: of answers given blindly.
        pools_wrong_answers: whether the truth ratio takes one mean of the wrong answers over all questions of a task.
    """

    name = "corrected"
    letters = False
    blind = False
    max_new_tokens = 0
    pools_wrong_answers = False

    def ask_open(self, vqa: VQA, group: ImageGroup) -> list[VQA]:
        """An open question with its answer, then with the paraphrased one, if there is any, and with the wrong ones."""
        others = [VQA(vqa.question, text) for text in (vqa.paraphrase, *vqa.perturbed) if text]
        return [replace(vqa, paraphrase="", perturbed=()), *others]

    def ask_choice(self, choice: MultipleChoice, group: ImageGroup) -> str:
        """The text of a multiple-choice question."""
        return choice_prompt(choice.question, choice.options)

    def ask_cloze(self, cloze: Cloze, group: ImageGroup) -> str:
        """The text of a sentence with a blank."""
        return cloze_prompt(cloze.question)

    def encoder(self, own: Encoder, task: Task, image: bool) -> Encoder:
        """What writes a question that is answered by generation; ``own``, unless text around it is another one."""
        return own

    def skips(self, group: ImageGroup, task: ClosedTask) -> bool:
        """Whether a group's questions of a task are left out."""
        return False

    def is_few_shot(self, mllm: MLLM, group: ImageGroup, task: ClosedTask) -> bool:
        """Whether a group's questions of a task are answered behind examples, by :meth:`answer_few_shot`."""
        return False

    def answer_few_shot(
        self, prefixes: PromptPrefixes, questions: Sequence[FewShotQuestion], max_new_tokens: int
    ) -> list[str]:
        """Answers questions greedily, each behind its examples: generated texts in the order of the questions.

        Args:
            prefixes: the model, in evaluation mode, and what it has read already.
            questions: those of one group next to each other.
            max_new_tokens: where an answer ends at the latest.
        """
        raise NotImplementedError

    def read_answer(self, text: str) -> str:
        """The answer in a generated text."""
        return text

    def read_option(self, text: str, options: Sequence[str]) -> str:
        """The option that a generated answer names by its letter; empty, which is wrong, if it names none."""
        raise NotImplementedError

    def task_of(self, question: str) -> str:
        """Which of the benchmark's tasks a question of a split belongs to; empty for none."""
        return ""

    def compares_with_gold(self, question: str) -> bool:
        """Whether the truth ratio of a question is compared with the gold model's (forget quality, 1 - JS)."""
        return True

    def overall(self, predictions: Sequence[Prediction]) -> dict[str, float] | None:
        """The numbers of the benchmark's own table about all splits; ``None``, for TOFU's utility, if it has none."""
        return None


CORRECTED = Protocol()
