"""Scores that compare by rank: the area under the ROC curve, membership by it, and exposure."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .checks import as_scores, check_bool, check_vector


def auroc(positive: Tensor | Iterable[float], negative: Tensor | Iterable[float]) -> float:
    """Return the area under the ROC curve of a score: P(positive > negative) + P(equal) / 2.

    In [0, 1]; 1 means that a threshold parts the two, 0.5 is chance, below 0.5 means that positives score *lower*.

    Args:
        positive: Scores of the class that should score high, any number of them.
        negative: Scores of the other class.

    Returns:
        The area, from mid-ranks (Mann-Whitney U), equal to `sklearn.metrics.roc_auc_score`.

    Raises:
        ValueError: If a class is empty or a score is NaN. Infinite scores are ranked.
    """
    first, second = as_scores(positive).flatten(), as_scores(negative).flatten()
    if not len(first) or not len(second):
        raise ValueError(f"the area needs at least one score of each class, found {len(first)} and {len(second)}")
    _, group, sizes = torch.unique(torch.cat([first, second]), return_inverse=True, return_counts=True)
    mid_rank = sizes.cumsum(0).double() - (sizes - 1).double() / 2
    rank_sum = mid_rank[group][: len(first)].sum().item()
    return (rank_sum - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))


def key_token_auroc(entropy: Tensor, private: Tensor) -> float:
    """Return how well entropy tells private tokens from the others: the area under the ROC curve.

    The chance that a random private token has a higher entropy than a random other one, a tie counting one half.
    In [0, 1]; 1 means that a threshold picks exactly the private tokens, 0.5 is chance, below 0.5 means that private
    tokens have the *lower* entropy.

    Args:
        entropy: [T] entropy of the predicted distribution at each token.
        private: [T] bool, whether the token belongs to a private span.

    Raises:
        ValueError: If the shapes differ, a tensor is not a non-empty vector, `private` is not bool, an entropy is NaN,
            or only one of the two classes is present.
    """
    check_vector(entropy, "entropy")
    check_bool(private, "private")
    if entropy.shape != private.shape:
        raise ValueError(f"entropy {tuple(entropy.shape)} and private {tuple(private.shape)} differ in shape")
    if private.all() or not private.any():
        raise ValueError("the area needs at least one private and one other token")
    return auroc(entropy[private], entropy[~private])


def exposure(truth: float, alternatives: Tensor | Sequence[float]) -> float:
    """Return how much a model prefers a secret to others of its type, in bits: log2 n - log2 rank.

    n counts the candidates, the true one among them; the rank is 1 plus the alternatives the model finds more
    likely, an equal one counting one half. In [0, log2 n]; log2 n means that the truth comes first. A model that
    knows nothing is not at 0: a rank drawn at random gives 1 / ln 2 = 1.44 bits on average for many candidates, so
    compare with a model that never saw the secret. High means memorised: low is wanted on data to forget.

    Carlini et al., The Secret Sharer (arXiv 1802.08232), sections 4.2-4.3, with the candidates given as a list in
    place of every string of a format.

    Args:
        truth: Log probability of the true answer; whether summed or per token is the caller's choice, the same for
            all candidates.
        alternatives: Log probabilities of the other candidates, the true one left out.

    Raises:
        ValueError: If there are no alternatives or a number is NaN.
    """
    others = as_scores(alternatives).flatten()
    if not len(others):
        raise ValueError("no alternatives: the exposure of a single candidate is undefined")
    if math.isnan(truth):
        raise ValueError("the log probability of the truth is NaN")
    rank = 1 + (others > truth).sum().item() + (others == truth).sum().item() / 2
    return math.log2(len(others) + 1) - math.log2(rank)


def distance_to_gold(model: float, gold: float, full: float) -> float:
    """Return which part of the way from the full to the gold model an attack's area has gone.

    s = 1 - min(1, |AUC_model - AUC_gold| / |AUC_full - AUC_gold|). In [0, 1]; high is wanted: 1 means that the
    attack sees what it sees in a model that never had the data, 0 that it sees as much as before or went as far astray
    on the other side. An area is never "better if lower": over-unlearned models have areas near 0
    that tell members as surely as areas near 1.

    Args:
        model: Area of the model under test, in [0, 1].
        gold: Area of the model trained without the data to forget.
        full: Area of the model before unlearning.

    Returns:
        The score; NaN if full and gold model have the same area, because there is no way to go.

    Raises:
        ValueError: If an area is outside [0, 1] or NaN.
    """
    for name, area in (("model", model), ("gold", gold), ("full", full)):
        if not 0 <= area <= 1:
            raise ValueError(f"the {name} area must be in [0, 1], not {area}")
    return 1 - min(1.0, abs(model - gold) / abs(full - gold)) if full != gold else math.nan
