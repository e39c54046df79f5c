"""What a score of a whole split may look at: its answers, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .coherence import answer_bits, answer_coherence
from .gold import Pairs, compared_ratios, forget_quality, pair_with_gold
from .prediction import FORGOTTEN, Prediction
from .truth import Data, Tasks, truth_ratios


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
    def bits(self) -> list[tuple[Prediction, float]]:
        """Bits per character of the answers that are judged."""
        return answer_bits(self.predictions)

    @cached_property
    def coherence(self) -> list[tuple[Prediction, float]]:
        """Coherence of the answers that are judged."""
        return answer_coherence(self.predictions)

    @cached_property
    def with_gold(self) -> Pairs:
        """Answers about people to forget beside the gold model's."""
        return pair_with_gold(self.predictions, self.gold)

    @cached_property
    def gold_ratios(self) -> tuple[list[float], list[float]]:
        """Truth ratios of these, of both models."""
        return compared_ratios(self.with_gold, self.protocol)

    @cached_property
    def forget_quality(self) -> dict[str, float]:
        """The test that compares them; empty where there are none."""
        return forget_quality(*self.gold_ratios) if self.gold_ratios[0] else {}

    @cached_property
    def pairs(self) -> list[tuple[Prediction, Prediction]]:
        """The same questions with image and without; none where they are not the same."""
        others = {(p.person, p.task, p.number): p for p in self.without_image if self.paired}
        return [(p, others[key]) for p in self.predictions if (key := (p.person, p.task, p.number)) in others]
