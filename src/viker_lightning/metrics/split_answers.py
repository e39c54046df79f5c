"""What a score of a whole split may look at: its answers, and what they are compared with."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .coherent import bits_per_character, coherence, usual_bits
from .gold import Pairs, forget_quality, forgotten_answers
from .prediction import FORGOTTEN, Prediction
from .truth import Data, Tasks, truth_ratios

log = logging.getLogger(__name__)


@dataclass(eq=False)
class SplitAnswers:
    """The answers of one split; what several scores need of them is computed once.

    Attributes:
        predictions: At least one, in order.
        without_image: Those to the same split's questions without image, where it is asked in both ways.
        gold: What the gold model answered, in any splits.
        protocol: How the questions were asked; without it, every question is a task of its own.
        gibberish: Texts to probabilities of being clean, such as a `GibberishClassifier`.
        paired: Whether the questions without image are the same, number by number (UMU-Bench).
    """

    predictions: Sequence[Prediction]
    without_image: Sequence[Prediction] = ()
    gold: Sequence[Prediction] = ()
    protocol: Tasks | None = None
    gibberish: Callable[[Sequence[str]], list[float]] | None = None
    paired: bool = False

    @property
    def data(self) -> Data:
        """Whether the split is to be forgotten or to be kept."""
        return "forget" if self.predictions[0].split in FORGOTTEN else "retain"

    @cached_property
    def generated(self) -> list[Prediction]:
        """Open questions."""
        return [p for p in self.predictions if p.task == "generation"]

    @cached_property
    def truth_ratios(self) -> list[float]:
        """Of the open questions that have wrong answers."""
        return [ratio for _, ratio in truth_ratios(self.generated, self.protocol)]

    @cached_property
    def judged(self) -> list[Prediction]:
        """Open answers that are no refusals, where a language model has read the true ones."""
        return [p for p in self.generated if p.reference_log_prob is not None and not p.refuses]

    @cached_property
    def usual(self) -> float:
        """Bits per character of the true answers, the yardstick of coherence; 0 where no answer can be read."""
        if not any(_is_read(p) for p in self.judged):
            return 0.0
        true = [p for p in self.generated if p.reference_log_prob is not None]
        return usual_bits([p.reference for p in true], [p.reference_log_prob or 0.0 for p in true])

    @cached_property
    def bits(self) -> list[tuple[Prediction, float]]:
        """Bits per character of the judged answers that can be read; none without a yardstick."""
        read = [p for p in self.judged if _is_read(p)] if self.usual else []
        return [(p, bits_per_character(p.answer, p.answer_log_prob or 0.0)) for p in read]

    @cached_property
    def coherence(self) -> list[tuple[Prediction, float]]:
        """Coherence of the judged answers; none without a yardstick.

        An answer that says nothing that can be read (white space, or a token that stands for an image) scores 0.
        """
        said = [(p, p.answer if _is_read(p) else "") for p in self.judged] if self.usual else []
        return [(p, coherence(text, p.answer_log_prob or 0.0, self.usual)) for p, text in said]

    @cached_property
    def with_gold(self) -> Pairs:
        """Answers about people to forget beside the gold model's to the same questions, if it was asked any."""
        ours, theirs = forgotten_answers(self.predictions), forgotten_answers(self.gold)
        shared = [key for key in ours if key in theirs]
        if theirs and len(shared) < len(ours):
            log.warning("gold: %d of %d questions have been answered by the gold model, too", len(shared), len(ours))
        return [ours[key] for key in shared], [theirs[key] for key in shared]

    @cached_property
    def gold_ratios(self) -> tuple[list[float], list[float]]:
        """Truth ratios of these, of both models, that forget quality and 1 - JS compare (TOFU, CLEAR).

        Of captions and names together, as published of captions alone. Empty where there are no wrong answers, or not
        to the same questions.
        """
        keep = self.protocol.compares_with_gold if self.protocol else lambda question: True
        one, two = (
            [ratio for p, ratio in truth_ratios(answers, self.protocol) if keep(p.question)]
            for answers in self.with_gold
        )
        return (one, two) if len(one) == len(two) else ([], [])

    @cached_property
    def forget_quality(self) -> dict[str, float]:
        """The test that compares them; empty where there are none."""
        return forget_quality(*self.gold_ratios) if self.gold_ratios[0] else {}

    @cached_property
    def pairs(self) -> list[tuple[Prediction, Prediction]]:
        """The same questions with image and without; none where they are not the same."""
        others = {(p.person, p.task, p.number): p for p in self.without_image if self.paired}
        return [(p, others[key]) for p in self.predictions if (key := (p.person, p.task, p.number)) in others]


def _is_read(p: Prediction) -> bool:
    return p.answer_log_prob is not None and bool(p.answer.strip())
