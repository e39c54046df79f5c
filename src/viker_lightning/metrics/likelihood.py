"""Scores of one answer, from the values a model gives to its tokens under teacher forcing.

Every tensor is one-dimensional and holds the tokens of one answer only: no prompt, image or padding positions.
"""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from .checks import check_bool, check_log_probs

Value = TypeVar("Value")


def own_tokens(values: Sequence[Value], ended: bool | None, protocol: str) -> Sequence[Value]:
    """Return the values of an answer's own tokens: all but that of the end of sequence behind it.

    What a model says behind an answer is no part of the answer: with it, an answer of which every word is wrong would
    still be memorised by 1 / L. open-unlearning leaves it out of `extraction_strength`, `exact_memorization`, `min_k`
    and `min_k_plus_plus` (`evals/metrics/utils.py`, `tokenwise_logprobs`: "-1 to ignore eos prediction"), but not of
    probabilities and of what is made of them (`evaluate_probability`), and neither does TOFU.

    Args:
        values: One for each token that was predicted, in order.
        ended: Whether the last one is of the end of sequence; None if the file of predictions is too old to say. Then
            the protocol decides.
        protocol: How the answer was asked for: only as `corrected` are answers ended.

    Returns:
        The values, empty if nothing but the end of sequence was predicted.
    """
    return values[:-1] if (protocol == "corrected" if ended is None else ended) else values


def answer_probability(log_probs: Tensor) -> float:
    """Return the probability of an answer per token: exp(mean_t log p(y_t)) (TOFU, open-unlearning).

    The geometric mean of the token probabilities, in [0, 1]; 1 means that the model is certain of every token. High is
    wanted on data to keep, low on data to forget.

    Args:
        log_probs: [T] log probability of each answer token.

    Raises:
        ValueError: If the tensor is not a non-empty vector, holds NaN, or holds positive values (losses, say).
    """
    check_log_probs(log_probs)
    return min(1.0, log_probs.double().mean().exp().item())


def extraction_strength(correct: Tensor) -> float:
    """Return the share of an answer that the model completes by itself: 1 - k* / L (open-unlearning).

    k* is the smallest k such that every token t >= k (counted from 0) is predicted, so this is the length of the
    correct ending over L. The end of sequence is no part of an answer (`own_tokens`). In [0, 1]; 1 means that the
    whole answer can be extracted from its prompt. High is wanted on data to keep, low on data to forget. Exactly 0 if
    the last token is wrong, where open-unlearning's loop leaves 1 / L.

    Args:
        correct: [T] bool, whether the most likely token is the true one.

    Raises:
        ValueError: If the tensor is not a non-empty bool vector.
    """
    check_bool(correct, "correct")
    return correct.flip(0).cumprod(0).sum().item() / correct.numel()


def exact_memorization(correct: Tensor) -> float:
    """Return the share of tokens predicted right: mean_t 1[argmax p = y_t] (open-unlearning).

    In [0, 1]. High is wanted on data to keep, low on data to forget, though function words alone keep it off 0.

    Args:
        correct: [T] bool, whether the most likely token is the true one.

    Raises:
        ValueError: If the tensor is not a non-empty bool vector.
    """
    check_bool(correct, "correct")
    return correct.double().mean().item()
