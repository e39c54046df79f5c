"""From predictions to numbers: one place, whoever asks."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch

from viker_lightning import metrics

from .predict import Prediction

DIRECTIONS = {
    "accuracy": "multiple-choice accuracy, 0-1",
    "cloze": "share of blanks filled right, 0-1",
    "rouge_l": "ROUGE-L F of the greedy answer, stemmed, 0-1",
    "bleu": "sentence BLEU-4 (nltk method1) of the greedy answer, 0-1",
    "keyword_match": "share of private parts found in the greedy answer, 0-1",
    "answer_probability": "exp of the mean log-probability of the reference answer, 0-1",
    "private_probability": "mean probability of the private tokens of the reference, 0-1",
    "template_probability": "mean probability of the other tokens of the reference, 0-1; high is good everywhere",
    "extraction_strength": "share of the reference the model completes by itself, 0-1",
    "repetition": "repeated word trigrams of the greedy answer, 0-1; low is good everywhere",
    "kl_gold": "mean KL(gold || model) of answer tokens, nats, >= 0; low is good everywhere",
}
"""What each number is. If nothing is said: high is good on retain, real and general, low is good on forget and test."""


def summarise(predictions: Iterable[Prediction]) -> dict[str, dict[str, float]]:
    """Computes every metric for every split.

    Args:
        predictions: in any order, each question once.

    Returns:
        For each split, metrics (see :data:`DIRECTIONS`) and ``n``, the number of open questions; a metric without data
        is left out.
    """
    ordered = sorted(predictions, key=lambda p: p.split)
    return {split: _split(list(found)) for split, found in groupby(ordered, key=lambda p: p.split)}


def _split(found: list[Prediction]) -> dict[str, float]:
    generated = [p for p in found if p.task == "generation"]
    probabilities = {True: metrics.Mean(), False: metrics.Mean()}
    scores: dict[str, Any] = {
        "accuracy": metrics.Accuracy(),
        "cloze": metrics.Cloze(),
        "rouge_l": metrics.RougeL(),
        "bleu": metrics.BleuMLLMU(),
        "keyword_match": metrics.KeywordMatch(),
        "answer_probability": metrics.AnswerProbability(),
        "private_probability": probabilities[True],
        "template_probability": probabilities[False],
        "extraction_strength": metrics.ExtractionStrength(),
        "repetition": metrics.Repetition(),
        "kl_gold": metrics.Mean(),
    }
    for p in found:
        if p.task == "choice":
            scores["accuracy"].update(p.answer, p.reference)
        elif p.task == "cloze":
            scores["cloze"].update(p.answer, p.reference)
    for p in generated:
        scores["rouge_l"].update(p.answer, p.reference)
        scores["bleu"].update(p.answer, p.reference)
        scores["repetition"].update(p.answer)
        if p.private:
            scores["keyword_match"].update(p.answer, list(p.private))
        scores["answer_probability"].update(torch.tensor(p.log_probs))
        scores["extraction_strength"].update(torch.tensor(p.correct))
        for private, mean in probabilities.items():
            chosen = [lp for lp, flag in zip(p.log_probs, p.private_tokens, strict=True) if flag == private]
            if chosen:
                mean.update(torch.tensor(chosen).exp())
        if p.kl_gold is not None:
            scores["kl_gold"].update(p.kl_gold)
    values = {name: float(metric.compute()) for name, metric in scores.items() if metric.update_called}
    return values | {"n": len(generated)}
