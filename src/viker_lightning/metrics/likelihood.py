"""Scores of one answer, from the values a model gives to its tokens under teacher forcing.

Every tensor is one-dimensional and holds the tokens of one answer only: no prompt, image or padding positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding may lift a log probability this far above zero.
_ROUNDING = 1e-4


def answer_probability(log_probs: Tensor) -> float:
    """Return the probability of an answer per token: exp(mean_t log p(y_t)) (TOFU, open-unlearning).

    In [0, 1]; 1 means that the model is certain of every token. High is wanted on data to keep, low on data to forget.

    Args:
        log_probs: [T] log probability of each answer token.

    Returns:
        The geometric mean of the token probabilities.

    Raises:
        ValueError: If the tensor is not a non-empty vector, holds NaN, or holds positive values (losses, say).
    """
    _check_vector(log_probs, "log_probs")
    if log_probs.max() > _ROUNDING:
        raise ValueError("log_probs must not be positive: pass log probabilities, not losses")
    return min(1.0, log_probs.double().mean().exp().item())


def extraction_strength(correct: Tensor) -> float:
    """Return the share of an answer that the model completes by itself: 1 - k* / L (open-unlearning).

    k* is the smallest k such that every token t >= k (counted from 0) is predicted, so this is the length of the
    correct ending over L. In [0, 1]; 1 means that the whole answer can be extracted from its prompt. High is wanted
    on data to keep, low on data to forget. Exactly 0 if the last token is wrong, where open-unlearning's loop leaves
    1 / L (defect A.3 #10 in evaluation.md).

    Args:
        correct: [T] bool, whether the most likely token is the true one.

    Returns:
        The score.

    Raises:
        ValueError: If the tensor is not a non-empty bool vector.
    """
    _check_bool(correct, "correct")
    return correct.flip(0).cumprod(0).sum().item() / correct.numel()


def exact_memorization(correct: Tensor) -> float:
    """Return the share of tokens predicted right: mean_t 1[argmax p = y_t] (open-unlearning).

    In [0, 1]. High is wanted on data to keep, low on data to forget, though function words alone keep it off 0.

    Args:
        correct: [T] bool, whether the most likely token is the true one.

    Returns:
        The score.

    Raises:
        ValueError: If the tensor is not a non-empty bool vector.
    """
    _check_bool(correct, "correct")
    return correct.double().mean().item()


def key_token_auroc(entropy: Tensor, private: Tensor) -> float:
    """Return how well entropy tells private tokens from the others: the area under the ROC curve.

    The chance that a random private token has a higher entropy than a random other one, a tie counting one half.
    In [0, 1]; 1 means that a threshold picks exactly the private tokens, 0.5 is chance, below 0.5 means that private
    tokens have the *lower* entropy.

    Args:
        entropy: [T] entropy of the predicted distribution at each token.
        private: [T] bool, whether the token belongs to a private span.

    Returns:
        The area, from mid-ranks (Mann-Whitney U).

    Raises:
        ValueError: If the shapes differ, a tensor is not a non-empty vector, `private` is not bool, an entropy is NaN,
            or only one of the two classes is present.
    """
    _check_vector(entropy, "entropy")
    _check_bool(private, "private")
    if entropy.shape != private.shape:
        raise ValueError(f"entropy {tuple(entropy.shape)} and private {tuple(private.shape)} differ in shape")
    positives = int(private.sum())
    negatives = private.numel() - positives
    if not positives or not negatives:
        raise ValueError("the area needs at least one private and one other token")
    _, group, sizes = torch.unique(entropy, return_inverse=True, return_counts=True)
    mid_rank = sizes.cumsum(0).double() - (sizes - 1).double() / 2
    rank_sum = mid_rank[group][private].sum().item()
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _check_vector(values: Tensor, name: str) -> None:
    if values.ndim != 1 or not values.numel():
        raise ValueError(f"{name} must be a non-empty vector, not of shape {tuple(values.shape)}")
    if values.isnan().any():
        raise ValueError(f"{name} holds NaN")


def _check_bool(values: Tensor, name: str) -> None:
    _check_vector(values, name)
    if values.dtype != torch.bool:
        raise ValueError(f"{name} must be bool, not {values.dtype}")
