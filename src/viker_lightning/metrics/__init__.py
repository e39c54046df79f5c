"""Scores of one answer (pure functions) and their means over a data set (torchmetrics classes)."""

from __future__ import annotations

from .classes import (
    Accuracy,
    AnswerProbability,
    BleuMLLMU,
    Cloze,
    ExtractionStrength,
    KeywordMatch,
    Repetition,
    RougeL,
)
from .likelihood import (
    answer_probability,
    exact_memorization,
    extraction_strength,
    key_token_auroc,
)
from .mean import Mean
from .text import (
    bleu_mllmu,
    choice_correct,
    cloze_correct,
    keyword_match,
    repetition,
    rouge_l,
)

__all__ = [
    "Accuracy",
    "AnswerProbability",
    "BleuMLLMU",
    "Cloze",
    "ExtractionStrength",
    "KeywordMatch",
    "Mean",
    "Repetition",
    "RougeL",
    "answer_probability",
    "bleu_mllmu",
    "choice_correct",
    "cloze_correct",
    "exact_memorization",
    "extraction_strength",
    "key_token_auroc",
    "keyword_match",
    "repetition",
    "rouge_l",
]
