"""What the authors' code of any benchmark may do otherwise, in training and in evaluation."""

from collections.abc import Sequence
from dataclasses import replace

from viker_lightning.data.encoding import Template
from viker_lightning.data.prompts import LETTERS
from viker_lightning.data.records import ImageGroup, Labels
from viker_lightning.evaluation import Protocol
from viker_lightning.methods import Method

LETTER_REQUEST = "Just give ONE letter representing the answer directly."
"""MLLMU-Bench's words (franciscoliu/MLLMU-Bench eval.py L397-416)."""


class Published(Protocol):
    """How the authors of a benchmark train, ask and score; what is not overridden is done as everywhere.

    Attributes:
        labels: which tokens count in the losses of their training.
        redraws: whether training words questions anew in every step, so that nobody can be asked about them before.
    """

    name = "published"
    letters = True
    labels = Labels.ANSWER
    redraws = False

    @property
    def placeholders(self) -> bool:
        """Whether the placeholders of an image are labels, too, where all text is."""
        return False

    def template(self, own: Template) -> Template:
        """The text around questions, from that of the model family, which is MLLMU-Bench's for LLaVA."""
        return own

    def training_group(self, group: ImageGroup, labels: Labels, seed: str) -> ImageGroup:
        """An image group as a training step asks it.

        Args:
            group: with the questions of the data.
            labels: which tokens count: ``labels``, or fewer where the method is defined on answers.
            seed: of what is drawn anew in every step.
        """
        return replace(group, vqa=tuple(replace(vqa, labels=labels) for vqa in group.vqa))

    def objective(self, method: Method) -> Method:
        """A method as the authors' script has it, itself where there is none; an error if that lacks a setting."""
        return method


def list_options(options: Sequence[str], between: str) -> str:
    """Options of a multiple-choice question, one a line, each behind its letter."""
    letters = LETTERS[: len(options)]
    return "\n".join(f"{letter}{between}{option}" for letter, option in zip(letters, options, strict=True))


def option_of(letter: str, options: Sequence[str]) -> str:
    """The option that a letter names; empty if it names none."""
    letters = LETTERS[: len(options)]
    return options[letters.index(letter.upper())] if letter and letter.upper() in letters else ""
