"""Membership inference: are answers about the people to be forgotten told from those about people nobody ever met?"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.attacks.attempt import Attempt, attempts
from viker_lightning.attacks.base import Attack
from viker_lightning.attacks.material import Material, heard, private_questions
from viker_lightning.attacks.subject import Subject
from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import ImageGroup, Split, person_name
from viker_lightning.evaluation import predict
from viker_lightning.metrics.gold import ATTACKS
from viker_lightning.models import MLLM
from viker_lightning.terminal.progress import Bar

log = logging.getLogger(__name__)

ANSWERS, GRADIENTS = "answers", "gradients"

OF_ANSWERS = {"LOSS": "mia_loss", "zlib": "mia_zlib", "Min-K": "mia_min_k", "Min-K++": "mia_min_k_plus_plus"}
"""What is read off the probabilities of an answer, by its name in :data:`viker_lightning.metrics.gold.ATTACKS`."""

GRADIENT = "GradNorm"

FALSE_POSITIVES = 0.01
"""Share of the holdout answers that may be called members."""

AWAY, WORLDS = 5000, 2
"""From an embedded world to those whose people are the holdout: how far by seed, and how many."""


@dataclass(frozen=True)
class Membership(Attack):
    """Asks of every answer whether it was trained on: LOSS, zlib, Min-K, Min-K++, GradNorm.

    An answer's score is compared with those of answers about people no model was trained on. **A hit is its rank among
    them**, the share that score lower, an equal one counting one half, 0 to 1. So the mean hit is the area under the
    ROC curve: 1 if a threshold parts members from others, 0.5 if the people are as unknown as those of the holdout,
    below that if they are told by being too unlikely. Of an embedded benchmark only answers enter whose private words
    people who are kept share, as in the holdout. Near gold is good, and near 1 on people who are kept.
    """

    name = "membership"
    about = "tells answers about forgotten people from answers about people nobody was trained on"
    source = (
        "LOSS arXiv 1709.01604, zlib 2012.07805, Min-K 2310.16789 (k .2), Min-K++ 2404.02936, GradNorm 2402.17012, as "
        "open-unlearning has them (src/evals/metrics/mia)"
    )
    says = False
    conditions = (ANSWERS, GRADIENTS)

    @override
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        others = holdout(material.data)
        if part == GRADIENTS and not others:
            return []
        mllm, groups = subject.load(), material.asked
        if material.data.grammar is not None:  # as in the holdout: what nobody kept shares is told by being unheard of
            groups = known_words(groups, heard(material.data))
        asked = predict(mllm, groups, max_new_tokens=50 if part == ANSWERS else 1)
        clean = attempts(asked, self.clean)
        if not others:
            log.warning(
                "%s: nobody is there whom no model was trained on, so members cannot be told", material.data.root
            )
            return clean
        if part == GRADIENTS:
            scores = [-norm for norm in gradient_norms(mllm, [*groups, *others])]
            return ranked(
                [replace(one, answer="") for one in clean], GRADIENT, scores[: len(clean)], scores[len(clean) :]
            )
        unknown = predict(mllm, others, max_new_tokens=1)  # of these only the probabilities are of use
        found = clean
        for series, score in OF_ANSWERS.items():
            found = [*found, *ranked(clean, series, *([ATTACKS[score](p) for p in some] for some in (asked, unknown)))]
        return found

    @override
    def numbers(self, found: Sequence[Attempt]) -> dict[str, float]:
        """Area under the ROC curve, and the share of answers above 99 % of the holdout (TPR at 1 % FPR), of both."""
        numbers: dict[str, float] = {}
        for whose, start in (("forget", ""), ("retain", "retain_")):
            ranks = [one.hit for one in found if one.whose == whose and one.series != self.clean]
            if ranks:
                numbers[f"{start}auc"] = sum(ranks) / len(ranks)
                numbers[f"{start}tpr_at_1_fpr"] = sum(r >= 1 - FALSE_POSITIVES for r in ranks) / len(ranks)
        return numbers


def ranked(found: Sequence[Attempt], series: str, scores: Sequence[float], others: Sequence[float]) -> list[Attempt]:
    """Attempts whose hit is the rank of a score among those of the holdout, 0 to 1."""
    below = sorted(others)
    ranks = [(bisect_left(below, score) + bisect_right(below, score)) / 2 / len(below) for score in scores]
    return [replace(one, series=series, hit=rank) for one, rank in zip(found, ranks, strict=True)]


def gradient_norms(mllm: MLLM, groups: Sequence[ImageGroup]) -> list[float]:
    """Norm, >= 0, of the gradient of each answer's loss with respect to the language model's weights, left trainable.

    The loss is the mean over the answer's tokens; the norm is that of all weights together (p = 2), low for what was
    trained on. Each weight's gradient is dropped as soon as it is known, so they are never there all at once.
    """
    mllm.language_model.requires_grad_(True)
    squares: list[Tensor] = []

    def note(weight: Tensor) -> None:
        assert weight.grad is not None
        squares.append(weight.grad.float().square().sum())
        weight.grad = None

    handles = [p.register_post_accumulate_grad_hook(note) for p in mllm.language_model.parameters() if p.requires_grad]
    norms = []
    with torch.enable_grad(), Bar(GRADIENT, sum(len(g.vqa) for g in groups), "questions") as bar:
        for group in groups:
            for question in group.vqa:
                (-mllm.answer_tokens(mllm.pack([replace(group, vqa=(question,))])).log_probs.mean()).backward()
                norms.append(torch.stack(squares).sum().sqrt().item())
                squares.clear()
                bar.advance()
    for handle in handles:
        handle.remove()
    return norms


def holdout(data: Benchmark) -> list[ImageGroup]:
    """Questions about people no model was trained on, and as like the others as they can be.

    The people of an embedded benchmark are compared with those of other worlds; what these share with nobody who is
    kept (a town, a first name) is left out, since it would be told from the rest by being unheard of. Elsewhere they
    are the known people of the split ``real``, whom no loss has seen: they differ from invented ones in more than that
    (arXiv 2504.18349), so what counts is the difference from gold. Where these were trained on, too, there is nobody;
    the areas that compare with gold answer by answer (``mia_loss`` and its like in ``results.json``) need no holdout.
    """
    if data.grammar is None:  # not embedded
        trained = {person_name(p.id) for p in data.base_people}
        return [
            g for g in private_questions(data.evaluation(Split.REAL, "image")) if person_name(g.person) not in trained
        ]
    words = heard(data)
    root, _, seed = data.root.partition("@")
    found: list[ImageGroup] = []
    for world in range(int(seed or 0) + AWAY, int(seed or 0) + AWAY + WORLDS):
        other = type(data)(f"{root}@{world}", forget=data.forget, stage="unlearn")
        other.prepare_data()
        other.setup()
        asked = [
            g for split in (Split.FORGET, Split.RETAIN) for g in private_questions(other.evaluation(split, "image"))
        ]
        found += known_words(asked, words)
    return found


def known_words(groups: Sequence[ImageGroup], words: set[str]) -> list[ImageGroup]:
    """Questions whose private spans have no other words than these."""
    known = [replace(g, vqa=tuple(q for q in g.vqa if words.issuperset(" ".join(q.private).split()))) for g in groups]
    return [g for g in known if g.vqa]
