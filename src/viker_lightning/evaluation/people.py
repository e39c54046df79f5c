"""What a model knows, person by person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from viker_lightning import metrics
from viker_lightning.metrics.prediction import Prediction

from .summary import by_split


def by_person(predictions: Sequence[Prediction]) -> dict[str, dict[str, dict[str, float]]]:
    """Computes what is known of every person.

    Args:
        predictions: in any order, each question once.

    Returns:
        By split, as in :func:`~viker_lightning.evaluation.summarise`, and by person: ``questions``, how many were
        asked, and where there are any: ``keyword_match`` of the answers with private parts, ``accuracy`` of the
        multiple-choice questions, ``answer_probability`` of the references, all 0-1.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for split, part in by_split(predictions).items():
        people: dict[str, list[Prediction]] = {}
        for p in part:
            people.setdefault(p.person, []).append(p)
        found[split] = {person: _known(mine) for person, mine in sorted(people.items())}
    return found


def _known(mine: Sequence[Prediction]) -> dict[str, float]:
    scores: dict[str, Any] = {
        "keyword_match": metrics.KeywordMatch(),
        "accuracy": metrics.Accuracy(),
        "answer_probability": metrics.AnswerProbability(),
    }
    for p in mine:
        if p.task == "choice":
            scores["accuracy"].update(p.answer, p.reference)
        elif p.task == "generation":
            scores["answer_probability"].update(torch.tensor(p.log_probs))
            if p.private:
                scores["keyword_match"].update(p.answer, list(p.private))
    values = {name: float(metric.alone().compute()) for name, metric in scores.items() if metric.update_called}
    return {"questions": len(mine)} | values
