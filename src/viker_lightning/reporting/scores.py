"""Scores of single questions from ``predictions.parquet``, so that people can be drawn from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch

from viker_lightning import metrics
from viker_lightning.evaluation.directions import better
from viker_lightning.runs.read import Row, Run

from .intervals import Sums

Scored = dict[str, dict[str, Sums]]
"""Split, then score, then what each person adds."""

SIGNS = {"min": "↓", "max": "↑", "gold": "★", None: "·"}
"""What is good: low, high, near gold (the star of tables and plots), near another value."""


def arrow(split: str, score: str) -> str:
    """The sign of :data:`SIGNS` for what is good of a score."""
    return SIGNS[better(split, score)]


_SCORED: WeakKeyDictionary[Run, dict[str, Scored]] = WeakKeyDictionary()


def scores_of(run: Run, when: str = "after") -> Scored:
    """What each person adds to each score at a moment of a run; empty if nothing was measured then."""
    found = _SCORED.setdefault(run, {})
    if when not in found:
        found[when] = scored(run.predictions.get(when, []))
    return found[when]


def scored(rows: Sequence[Row]) -> Scored:
    """Every score that is a mean over questions or tokens, as the mean over a split is defined in ``results.json``.

    Args:
        rows: predictions of one moment.

    Returns:
        By split (``<split>_text`` for questions without image where a split has both) and score; scores without data
        are left out, and so are those that are no means: corpus BLEU, GIB, forget quality, membership.
    """
    modalities: dict[str, set[str]] = defaultdict(set)
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        modalities[row["split"]].add(row["modality"])
    for row in rows:
        apart = row["modality"] == "text" and len(modalities[row["split"]]) > 1
        parts[row["split"] + "_text" * apart].append(row)
    return {split: _split_scores(part) for split, part in parts.items()}


def question_scores(row: Row) -> dict[str, float]:
    """Every score of one open question, choice or cloze, that needs no other questions: all but coherence."""
    return {name: sum(map(float, values)) / len(values) for name, values in _scores(row, None) if len(values)}


def _split_scores(rows: Sequence[Row]) -> dict[str, Sums]:
    found: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    usual = _usual(rows)
    for row in rows:
        for name, values in _scores(row, usual):
            values = [float(value) for value in values]
            found[name].append((row["person"], sum(values), len(values)))
    sums = {name: Sums.of(*zip(*entries, strict=True)) for name, entries in found.items()}
    return {name: one for name, one in sums.items() if one.people}


def _scores(row: Row, usual: float | None) -> Iterable[tuple[str, Sequence[float]]]:
    """Scores of a question; each is a list, since some are means over tokens."""
    if row["task"] == "choice":
        yield "accuracy", [metrics.choice_correct(row["answer"], row["reference"])]
        if row["options"] and row["log_probs"]:
            chosen = row["options"][metrics.likeliest_option(row["log_probs"])]
            yield "accuracy_per_token", [metrics.choice_correct(chosen, row["reference"])]
        return
    if row["task"] == "cloze":
        yield "cloze", [metrics.cloze_correct(row["answer"], row["reference"], row["protocol"] == "corrected")]
        return
    answer, log_probs = row["answer"], row["log_probs"]
    if row["private"]:
        yield "keyword_match", [metrics.keyword_match(answer, row["private"])]
        yield "keyword_match_whole", [metrics.keyword_match_whole(answer, row["private"])]
    yield "rouge_l", [metrics.rouge_l(answer, row["reference"])]
    yield "answer_probability", [metrics.answer_probability(torch.tensor(log_probs))]
    probabilities = [math.exp(value) for value in log_probs]
    for name, flag in (("private_probability", True), ("template_probability", False)):
        yield name, [p for p, private in zip(probabilities, row["private_tokens"], strict=True) if private == flag]
    if correct := metrics.own_tokens(row["correct"], row.get("ended"), row["protocol"]):
        yield "extraction_strength", [metrics.extraction_strength(torch.tensor(correct))]
        yield "exact_memorization", [metrics.exact_memorization(torch.tensor(correct))]
    yield "repetition", [metrics.repetition(answer)]
    refusal = _refuses(row)
    yield "refusals", [refusal]
    if row.get("well_formed") is not None:
        yield "well_formed", [row["well_formed"]]
    if row["kl_gold"] is not None:
        yield "kl_gold", [row["kl_gold"]]
    if usual and row["reference_log_prob"] is not None and not refusal:
        read = row["answer_log_prob"] is not None  # else nothing that could be read was said
        yield "coherence", [metrics.coherence(answer if read else "", row["answer_log_prob"] or 0.0, usual)]


def _refuses(row: Row) -> bool:
    known = row.get("refusal")  # a file that is too old to say knows those of the project's own list
    return metrics.is_refusal(row["answer"]) if known is None else known


def _usual(rows: Sequence[Row]) -> float | None:
    """Median bits per character of the true answers, the yardstick of coherence; ``None`` if nothing was read."""
    read = [row for row in rows if row["task"] == "generation" and row["reference_log_prob"] is not None]
    if not any(row["answer_log_prob"] is not None and row["answer"].strip() and not _refuses(row) for row in read):
        return None
    return metrics.usual_bits([row["reference"] for row in read], [row["reference_log_prob"] for row in read])
