"""What the frozen model says about answer tokens, reduced to one vector and two numbers a token.

Let p be a reference distribution (for ViKeR the ideal distribution, a mean over irrelevant images) and q = softmax(W
h) the student's, W being the frozen output embedding. Then

    KL(p || q) = -H(p) - <W' p, h> + logsumexp(W h)

so value and gradient in h need only c = W' p (d numbers) and the entropy H(p), never the V probabilities. c is linear
in p, so averaging over images costs nothing more. H(p) of the ideal distribution is the key-token entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from viker_lightning.models.tokens import AnswerTokens


@dataclass
class Reference:
    """The frozen model's word on T answer tokens.

    Attributes:
        vector: ``[T, d]`` W' p.
        entropy: ``[T]`` entropy of p in nats, 0 to log V. High for tokens only the person's own data can tell.
        log_prob: ``[T]`` log-probability p gives to the answer token.
    """

    vector: Tensor
    entropy: Tensor
    log_prob: Tensor

    @classmethod
    def cat(cls, parts: list[Reference]) -> Reference:
        """Joins token lists."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in ("vector", "entropy", "log_prob")))

    def split(self, sizes: list[int]) -> list[Reference]:
        """Cuts into consecutive token lists."""
        columns = (self.vector.split(sizes), self.entropy.split(sizes), self.log_prob.split(sizes))
        return [Reference(*part) for part in zip(*columns, strict=True)]

    def to(self, device: torch.device | str) -> Reference:
        """Copies to a device."""
        return Reference(self.vector.to(device), self.entropy.to(device), self.log_prob.to(device))


def mean_distribution(logits: Tensor) -> Tensor:
    """The ideal distribution: mean over images of the next-token distributions.

    Args:
        logits: ``[k, T, V]``, one slice for each irrelevant image.

    Returns:
        ``[T, V]`` probabilities, fp32. Source: ViKeR (arXiv 2601.22020), ideal token distribution.
    """
    return logits.float().softmax(-1).mean(0)


def reduce_distribution(p: Tensor, labels: Tensor, head_weight: Tensor) -> Reference:
    """Reduces distributions to what a forward KL needs.

    Args:
        p: ``[T, V]`` probabilities.
        labels: ``[T]`` answer token ids.
        head_weight: ``[V, d]`` output embedding, frozen.
    """
    entropy = torch.special.entr(p).sum(-1)
    log_prob = p.gather(-1, labels[:, None])[:, 0].clamp_min(torch.finfo(p.dtype).tiny).log()
    return Reference(p @ head_weight.float(), entropy, log_prob)


def output_weight(head: nn.Module) -> Tensor:
    """``[V, d]`` weights of an output embedding, cut from the graph."""
    return head.get_parameter("weight").detach()


def reference_of(tokens: AnswerTokens) -> Reference:
    """The reference from the frozen model's own answer tokens (one image, no averaging)."""
    p = tokens.logits.softmax(-1)
    reference = reduce_distribution(p, tokens.labels, output_weight(tokens.head))
    return Reference(reference.vector, reference.entropy, tokens.log_probs)  # exact even where p underflows


def forward_kl(reference: Reference, tokens: AnswerTokens) -> Tensor:
    """KL(reference || student) of each answer token from the reduced reference.

    Returns:
        ``[T]`` nats, >= 0 up to rounding; gradient in the logits is ``q - p``.
    """
    return tokens.log_normaliser - (reference.vector * tokens.hidden.float()).sum(-1) - reference.entropy


def token_kl(p: Tensor, logits: Tensor, direction: str = "forward") -> Tensor:
    """KL of each token from full distributions: the plain way.

    Args:
        p: ``[T, V]`` reference probabilities.
        logits: ``[T, V]`` student logits.
        direction: ``forward`` is KL(reference || student), ``reverse`` is KL(student || reference).

    Returns:
        ``[T]`` nats.
    """
    log_q = logits.float().log_softmax(-1)
    if direction == "forward":
        return -torch.special.entr(p).sum(-1) - (p * log_q).sum(-1)
    log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
    return (log_q.exp() * (log_q - log_p)).sum(-1)
