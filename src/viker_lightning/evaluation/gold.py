"""Is the unlearned model like one that never saw the forget set? From the predictions of both."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch

from viker_lightning import metrics
from viker_lightning.errors import UserError
from viker_lightning.metrics.prediction import Prediction

from .protocols import CORRECTED, Protocol
from .truth import ratios

log = logging.getLogger(__name__)

ATTACKS = {
    "mia_loss": lambda p: metrics.loss_score(torch.tensor(p.log_probs)),
    "mia_zlib": lambda p: metrics.zlib_score(torch.tensor(p.log_probs), p.reference),
    "mia_min_k": lambda p: metrics.min_k(_own(p, p.log_probs)),
    "mia_min_k_plus_plus": lambda p: metrics.min_k_plus_plus(
        _own(p, p.log_probs), _own(p, p.log_prob_mean), _own(p, p.log_prob_variance)
    ),
}
"""Membership scores of an answer by itself, high meaning "was trained on".

As in open-unlearning (``mia/*.py``), LOSS and zlib count the end of sequence behind an answer; Min-K and Min-K++ do
not.
"""

REFERENCE = "mia_reference"
"""The attack that weighs an answer against the gold model's opinion of it."""


def compare(
    found: Sequence[Prediction], gold: Sequence[Prediction], protocol: Protocol = CORRECTED
) -> dict[str, float]:
    """Compares two models on the open questions about the people to forget.

    Forget quality and 1 - JS compare truth ratios, where there are wrong answers (TOFU, CLEAR): of captions and names
    together, as published of captions alone. Membership attacks need
    answers that were not trained on; neither benchmark has people for that, so the same answers under the gold model
    take their place: the area tells how well a threshold separates the two models, 0.5 meaning not at all.

    Args:
        found: predictions of one split by the model under test.
        gold: those of the gold model, of any splits.
        protocol: the one both were made with.

    Returns:
        Numbers named in :data:`~viker_lightning.evaluation.directions.DIRECTIONS`; none for splits that are not to be
        forgotten, or that the gold model was not asked about. 1 - JS is left out where a ratio is infinite or 0.
    """
    asked, known = _forgotten(found), _forgotten(gold)
    shared = [key for key in asked if key in known]
    if known and len(shared) < len(asked):
        log.warning("gold: %d of %d questions have been answered by the gold model, too", len(shared), len(asked))
    if not shared:
        return {}
    ours, theirs = [asked[key] for key in shared], [known[key] for key in shared]
    return _attacked(ours, theirs) | _truth(ours, theirs, protocol)


def check_gold(found: Sequence[Prediction], gold: Sequence[Prediction]) -> None:
    """Makes sure that a gold model was asked what is to be compared.

    Raises:
        UserError: if it answered none of the questions about the people to forget.
    """
    asked = _forgotten(found)
    if gold and asked and not asked.keys() & _forgotten(gold).keys():
        raise UserError(
            f"evaluation.gold_predictions: found none of the {len(asked)} open questions about the forget set; "
            "evaluate the gold model on the same data"
        )


def _attacked(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> dict[str, float]:
    """The area of each attack; Min-K++ is left out where a file of predictions is too old to have what it needs."""
    recorded = all(p.log_prob_mean for p in (*ours, *theirs))
    found = {}
    for name, score in ATTACKS.items():
        if recorded or name != "mia_min_k_plus_plus":
            found[name] = _area(list(map(score, ours)), list(map(score, theirs)))
    weighed = [
        metrics.reference_score(torch.tensor(one.log_probs), torch.tensor(two.log_probs))
        for one, two in zip(ours, theirs, strict=True)
    ]
    return found | {REFERENCE: _area(weighed, [0.0] * len(weighed))}


def _own(p: Prediction, values: Sequence[float]) -> torch.Tensor:
    """Values of the tokens of an answer, ``[T]``, without the end of sequence."""
    return torch.tensor(metrics.own_tokens(values, p.ended, p.protocol))


def _area(ours: Sequence[float], theirs: Sequence[float]) -> float:
    metric = metrics.MembershipAUROC().alone()
    metric.update(ours, theirs)
    return metric.compute().item()


def _truth(ours: Sequence[Prediction], theirs: Sequence[Prediction], protocol: Protocol) -> dict[str, float]:
    one, two = (
        [ratio for p, ratio in ratios(part, protocol) if protocol.compares_with_gold(p.question)]
        for part in (ours, theirs)
    )
    if not one or len(one) != len(two):
        return {}
    quality, similarity = metrics.ForgetQuality().alone(), metrics.JSSimilarity().alone()
    quality.update(one, two)
    tested = quality.compute()
    values = {"ks": tested["statistic"], "p": tested["p_value"], "log10_p": tested["log10_p"]}
    found = {f"forget_quality_{name}": value.item() for name, value in values.items()}
    if all(ratio and math.isfinite(ratio) for ratio in (*one, *two)):  # CLEAR's ratios are true over wrong
        similarity.update([1 / r for r in one], [1 / r for r in two])
        found["js_similarity"] = similarity.compute().item()
    return found


def distances(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How far unlearning has come to the gold model, by each membership attack.

    Args:
        before: summary of the model before unlearning, compared with the gold model.
        after: the same after unlearning.

    Returns:
        By split and attack, see :func:`~viker_lightning.metrics.distance_to_gold`; left out where the attack told the
        models apart not even before.
    """
    found = {
        split: {
            name: metrics.distance_to_gold(after[split][name], 0.5, values[name])
            for name in (*ATTACKS, REFERENCE)
            if values.get(name, 0.5) != 0.5 and name in after.get(split, {})
        }
        for split, values in before.items()
    }
    return {split: values for split, values in found.items() if values}


def _forgotten(found: Sequence[Prediction]) -> dict[tuple[Any, ...], Prediction]:
    """Open questions about the people to forget."""
    return {_key(p): p for p in found if p.task == "generation" and p.split in ("forget", "test")}


def _key(p: Prediction) -> tuple[Any, ...]:
    return p.split, p.modality, p.person, p.image, p.number, p.question, p.reference
