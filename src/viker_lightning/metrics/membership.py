"""Membership inference: was this answer trained on? One score per answer, high meaning yes.

open-unlearning (`mia/*.py`) gives these scores the opposite sign and counts the holdout set as positive, so that the
area under the ROC curve is the same. Feed the scores to `auroc` and its area to `distance_to_gold`. Where members and
holdout come from one distribution, these attacks stay near chance even on models that memorised (arXiv 2504.18349): use
fictitious holdout people.
"""

import zlib

import torch
from torch import Tensor

from .checks import check_log_probs, check_vector


def loss_score(log_probs: Tensor) -> float:
    """Return the mean log probability of the answer tokens, minus the loss (LOSS attack; Yeom et al., 1709.01604).

    In nats per token, at most 0; high means member.

    Args:
        log_probs: [T] log probability of each answer token.

    Raises:
        ValueError: If the tensor is not a non-empty vector of log probabilities.
    """
    check_log_probs(log_probs)
    return log_probs.double().mean().item()


def zlib_score(log_probs: Tensor, text: str) -> float:
    """Return `loss_score` over the bytes of the text after zlib (Carlini et al., 2012.07805; `mia/zlib.py`).

    In nats per token and byte, at most 0; high means member. Text that is likely only because it repeats itself
    compresses well and so scores lower.

    Args:
        log_probs: [T] log probability of each answer token.
        text: The answer that these tokens spell.

    Raises:
        ValueError: If the tensor is not a non-empty vector of log probabilities, or the text is empty.
    """
    if not text:
        raise ValueError("the text is empty: its compressed size says nothing")
    return loss_score(log_probs) / len(zlib.compress(text.encode()))


def reference_score(log_probs: Tensor, reference: Tensor) -> float:
    """Return how much likelier the answer is than under a reference model: loss_ref - loss (2012.07805).

    In nats per token; high means member.

    Args:
        log_probs: [T] log probability of each answer token.
        reference: [T'] the same for a model that did not see the data; another tokenizer may give another length.

    Raises:
        ValueError: If a tensor is not a non-empty vector of log probabilities.
    """
    check_log_probs(reference, "reference")
    return loss_score(log_probs) - reference.double().mean().item()


def min_k(log_probs: Tensor, k: float = 0.2) -> float:
    """Return the mean log probability of the least likely k of the tokens (Min-K% Prob; Shi et al., 2310.16789).

    In nats, at most 0; high means member. floor(k T) tokens, but at least one, as in open-unlearning (`mia/min_k.py`).

    Args:
        log_probs: [T] log probability of each answer token.
        k: Share of the tokens, in (0, 1]; the paper uses 0.2, open-unlearning 0.4 on TOFU (`mia_min_k.yaml`).

    Raises:
        ValueError: If the tensor is not a non-empty vector of log probabilities, or k is out of range.
    """
    check_log_probs(log_probs)
    return _lowest(log_probs.double(), k)


def min_k_plus_plus(log_probs: Tensor, mean: Tensor, variance: Tensor, k: float = 0.2) -> float:
    """Return the mean of the lowest k of (log p(y_t) - mu_t) / sigma_t (Min-K%++; Zhang et al., 2404.02936, eq. 3-4).

    mu and sigma^2 are mean and variance of log p(v) for v drawn from the model's own distribution at t. In standard
    deviations; high means member. Variances below 1e-6 count as 1e-6, as in open-unlearning.

    Args:
        log_probs: [T] log probability of each answer token.
        mean: [T] mean of the log probability, see `log_prob_moments`.
        variance: [T] its variance.
        k: Share of the tokens, in (0, 1].

    Raises:
        ValueError: If the tensors differ in shape, are not non-empty vectors, a variance is negative, or k is out of
            range.
    """
    check_log_probs(log_probs)
    check_vector(mean, "mean")
    check_vector(variance, "variance")
    if not log_probs.shape == mean.shape == variance.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (log_probs, mean, variance))
        raise ValueError(f"log_probs, mean and variance differ in shape: {shapes}")
    if variance.min() < -1e-4:
        raise ValueError(f"variance must not be negative, found {variance.min().item():.3g}")
    # Below this variance open-unlearning's Min-K++ stops dividing by it (`mia/min_k_plus_plus.py`).
    sigma = variance.double().clamp_min(1e-6).sqrt()
    return _lowest((log_probs.double() - mean.double()) / sigma, k)


def log_prob_moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of log p(v) for v drawn from p = softmax(logits), as `min_k_plus_plus` wants them.

    The mean is minus the entropy. A token of probability 0 counts 0.

    Args:
        logits: [..., V], any float type.

    Returns:
        Two float32 tensors [...], in nats and squared nats.
    """
    log_p = logits.float().log_softmax(-1)
    p = log_p.exp()
    known = log_p.masked_fill(p == 0, 0)
    mean = (p * known).sum(-1)
    # Around the mean: the difference of two large numbers would lose digits.
    return mean, (p * (known - mean.unsqueeze(-1)).square()).sum(-1)


def _lowest(values: Tensor, k: float) -> float:
    if not 0 < k <= 1:
        raise ValueError(f"k must be in (0, 1], not {k}")
    return torch.topk(values, max(1, int(k * len(values))), largest=False).values.mean().item()
