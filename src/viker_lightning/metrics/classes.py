"""Means of the scores over a data set, one class per score.

`update` takes one sample or a list of samples. `higher_is_better` is stated for data that the model should know; on
data to forget the reading is reversed, except for `Repetition`, which should be low everywhere. Lists of different
lengths and whatever the scoring function refuses raise ValueError and leave the mean as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor

from .likelihood import answer_probability, exact_memorization, extraction_strength
from .mean import SampleMean
from .text import (
    bleu_mllmu,
    choice_correct,
    cloze_correct,
    keyword_match,
    keyword_match_whole,
    repetition,
    rouge_l,
    rouge_n,
)


class RougeL(SampleMean):
    """Mean of `rouge_l`, in [0, 1]."""

    higher_is_better = True

    def __init__(self, measure: Literal["fmeasure", "recall"] = "fmeasure", stem: bool = True) -> None:
        """Choose the F-measure (MLLMU-Bench) or the recall (TOFU, CLEAR).

        Args:
            measure: Which number of ROUGE-L to average.
            stem: Whether words are stemmed, as in all three.
        """
        super().__init__()
        self.measure = measure
        self.stem = stem

    def update(self, prediction: str | Sequence[str], reference: str | Sequence[str]) -> None:
        """Add generated answers and their true answers."""
        pairs = zip(_listed(prediction), _listed(reference), strict=True)
        self._add(rouge_l(p, r, self.measure, self.stem) for p, r in pairs)


class RougeLRecall(RougeL):
    """Mean of the ROUGE-L recall, in [0, 1], as TOFU and CLEAR report it."""

    def __init__(self, stem: bool = True) -> None:
        """Choose whether words are stemmed, as in both benchmarks."""
        super().__init__("recall", stem)


class RougeN(SampleMean):
    """Mean of `rouge_n`, in [0, 1], as MLLMU-Bench reports it."""

    higher_is_better = True

    def __init__(self, n: Literal[1, 2]) -> None:
        """Choose how many words in a row are compared.

        Args:
            n: 1 for ROUGE-1, 2 for ROUGE-2.
        """
        super().__init__()
        self.n = n

    def update(self, prediction: str | Sequence[str], reference: str | Sequence[str]) -> None:
        """Add generated answers and their true answers."""
        self._add(rouge_n(p, r, self.n) for p, r in zip(_listed(prediction), _listed(reference), strict=True))


class BleuMLLMU(SampleMean):
    """Mean of `bleu_mllmu`, in [0, 1]."""

    higher_is_better = True

    def update(self, prediction: str | Sequence[str], reference: str | Sequence[str]) -> None:
        """Add generated answers and their true answers."""
        self._add(bleu_mllmu(p, r) for p, r in zip(_listed(prediction), _listed(reference), strict=True))


class KeywordMatch(SampleMean):
    """Mean of `keyword_match`, in [0, 1]; every answer weighs the same, however many spans it has."""

    higher_is_better = True
    measure = staticmethod(keyword_match)

    def update(self, prediction: str | Sequence[str], keywords: Sequence[str] | Sequence[Sequence[str]]) -> None:
        """Add generated answers and the private spans of each: one list for one answer, else a list of lists."""
        spans = cast("Sequence[Sequence[str]]", [keywords] if isinstance(prediction, str) else keywords)
        self._add(self.measure(p, k) for p, k in zip(_listed(prediction), spans, strict=True))


class KeywordMatchWhole(KeywordMatch):
    """Mean of `keyword_match_whole`, in [0, 1]."""

    measure = staticmethod(keyword_match_whole)


class Cloze(SampleMean):
    """Share of blanks filled in right (`cloze_correct`), in [0, 1]."""

    higher_is_better = True

    def __init__(self, words: bool = True) -> None:
        """Choose what counts as found.

        Args:
            words: Whether the truth must stand on its own; MLLMU-Bench finds it inside words, too.
        """
        super().__init__()
        self.words = words

    def update(self, prediction: str | Sequence[str], truth: str | Sequence[str]) -> None:
        """Add generated answers and what belongs in their blanks."""
        self._add(cloze_correct(p, t, self.words) for p, t in zip(_listed(prediction), _listed(truth), strict=True))


class Accuracy(SampleMean):
    """Share of right choices (`choice_correct`), in [0, 1]; MLLMU-Bench prints it times 100."""

    higher_is_better = True

    def update(self, prediction: str | Sequence[str | None] | None, truth: str | Sequence[str]) -> None:
        """Add chosen options (None where the answer named none) and the right ones."""
        chosen = [prediction] if prediction is None or isinstance(prediction, str) else prediction
        self._add(choice_correct(p, t) for p, t in zip(chosen, _listed(truth), strict=True))


class Repetition(SampleMean):
    """Mean of `repetition`, in [0, 1); low is wanted on every data set."""

    higher_is_better = False

    def update(self, text: str | Sequence[str]) -> None:
        """Add generated answers."""
        self._add(repetition(t) for t in _listed(text))


class AnswerProbability(SampleMean):
    """Mean of `answer_probability`, in [0, 1]."""

    higher_is_better = True

    def update(self, log_probs: Tensor | Sequence[Tensor]) -> None:
        """Add the token log probabilities of one answer, [T], or a list of such vectors."""
        self._add(answer_probability(a) for a in ([log_probs] if isinstance(log_probs, Tensor) else log_probs))


class ExtractionStrength(SampleMean):
    """Mean of `extraction_strength`, in [0, 1]."""

    higher_is_better = True

    def update(self, correct: Tensor | Sequence[Tensor]) -> None:
        """Add which tokens of one answer are predicted right, [T] bool, or a list of such vectors."""
        self._add(extraction_strength(a) for a in ([correct] if isinstance(correct, Tensor) else correct))


class ExactMemorization(SampleMean):
    """Mean of `exact_memorization`, in [0, 1]."""

    higher_is_better = True

    def update(self, correct: Tensor | Sequence[Tensor]) -> None:
        """Add which tokens of one answer are predicted right, [T] bool, or a list of such vectors."""
        self._add(exact_memorization(a) for a in ([correct] if isinstance(correct, Tensor) else correct))


def _listed(texts: str | Sequence[str]) -> Sequence[str]:
    return [texts] if isinstance(texts, str) else texts
