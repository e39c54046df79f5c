"""What the frozen model says about answer tokens, reduced to one vector and two numbers a token.

Let p be a reference distribution (for ViKeR the ideal distribution, a mean over irrelevant images) and q = softmax(W
h) the student's, W being the frozen output embedding. Then

    KL(p || q) = -H(p) - <W' p, h> + logsumexp(W h)

so value and gradient in h need only c = W' p (d numbers) and the entropy H(p), never the V probabilities. c is linear
in p, so averaging over images costs nothing more. H(p) of the ideal distribution is the key-token entropy.

Both sides are differences of large numbers, so all of it is in fp32, logits included, in whatever type h and W are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from viker_lightning.models.logits import expected_embedding
from viker_lightning.models.tokens import AnswerTokens

Level = Literal["log_prob", "kl", "full"]
"""How much of what a reference says is used: the log-probability of the answer tokens (the cheapest), what a forward KL
needs, or every probability (computed in every step)."""

NAMES = ("vector", "entropy", "log_prob", "layers")
"""The tensors of a reference."""


@dataclass
class Reference:
    """The frozen model's word on T answer tokens.

    Attributes:
        vector: ``[T, d]`` W' p.
        entropy: ``[T]`` entropy of p in nats, 0 to log V. High for tokens only the person's own data can tell.
        log_prob: ``[T]`` log-probability p gives to the answer token.
        layers: ``[T, L, d]`` hidden states of L decoder layers of the frozen model, fp32, in the order they were asked
            for; ``[T, 0, 0]`` where none were.
    """

    vector: Tensor
    entropy: Tensor
    log_prob: Tensor
    layers: Tensor = None  # type: ignore[assignment]  # a tensor from __post_init__ on

    def __post_init__(self) -> None:
        if self.layers is None:
            self.layers = self.log_prob.new_zeros(len(self.log_prob), 0, 0)

    @classmethod
    def none(cls, head_weight: Tensor, layers: Sequence[int] = ()) -> "Reference":
        """Of no tokens, with so many layers."""
        nothing, d = head_weight.new_zeros(0, dtype=torch.float32), head_weight.shape[1]
        return cls(nothing.reshape(0, d), nothing, nothing, nothing.reshape(0, len(layers), d if layers else 0))

    @classmethod
    def cat(cls, parts: list["Reference"]) -> "Reference":
        """Joins token lists."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in NAMES))

    def split(self, sizes: list[int]) -> list["Reference"]:
        """Cuts into consecutive token lists."""
        columns = (getattr(self, name).split(sizes) for name in NAMES)
        return [Reference(*part) for part in zip(*columns, strict=True)]

    def clone(self) -> "Reference":
        """The same in memory of its own: a part of :meth:`split` keeps all of what it was cut from."""
        return Reference(*(getattr(self, name).clone() for name in NAMES))

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(getattr(self, name).nbytes for name in NAMES)

    def to(self, device: torch.device | str) -> "Reference":
        """Copies to a device."""
        return Reference(*(getattr(self, name).to(device) for name in NAMES))


def mean_distribution(logits: Iterable[Tensor]) -> Tensor:
    """The ideal distribution: mean over images of the next-token distributions.

    Args:
        logits: k times ``[T, V]``, one for each irrelevant image; taken one by one, so that only one need exist.

    Returns:
        ``[T, V]`` probabilities, fp32. Source: ViKeR (arXiv 2601.22020), ideal token distribution.
    """
    total, k = torch.zeros(()), 0
    for image in logits:
        p = image.float().softmax(-1)
        total, k = (total.add_(p) if k else p), k + 1
    return total.div_(k)


def reduce_distribution(p: Tensor, labels: Tensor, head_weight: Tensor) -> Reference:
    """Reduces distributions to what a forward KL needs.

    Args:
        p: ``[T, V]`` probabilities.
        labels: ``[T]`` answer token ids.
        head_weight: ``[V, d]`` output embedding, frozen.
    """
    statistics = statistics_of(p, labels)
    return Reference(expected_embedding(p, head_weight), statistics.entropy, statistics.log_prob)


def output_weight(head: nn.Module) -> Tensor:
    """``[V, d]`` weights of an output embedding, cut from the graph."""
    return head.get_parameter("weight").detach()


def statistics_of(p: Tensor, labels: Tensor) -> Reference:
    """Entropy and log-probabilities of ``[T, V]`` full distributions, of ``[T]`` token ids, without vectors."""
    entropy = torch.special.entr(p).sum(-1)
    log_prob = p.gather(-1, labels[:, None])[:, 0].clamp_min(torch.finfo(p.dtype).tiny).log()
    return Reference(p.new_zeros(len(p), 0), entropy, log_prob)


def reference_of(
    tokens: AnswerTokens, reduced: bool = True, layers: Sequence[int] = (), weight: Tensor | None = None
) -> Reference:
    """The reference from the frozen model's own answer tokens (one image, no averaging).

    Args:
        tokens: of the frozen model.
        reduced: whether vectors and entropies are wanted; else only log-probabilities are filled in.
        layers: decoder layers whose hidden states are wanted too; the tokens must have them.
        weight: ``[V, d]`` output embedding of the student, if that is not the frozen model's.
    """
    states = [tokens.layers[index].float() for index in layers]
    known = torch.stack(states, dim=1) if states else tokens.log_probs.new_zeros(len(tokens.labels), 0, 0)
    if not reduced:
        nothing = torch.zeros_like(tokens.log_probs)
        return Reference(nothing[:, None][:, :0], nothing, tokens.log_probs, known)
    weight = output_weight(tokens.head) if weight is None else weight
    reference = reduce_distribution(tokens.logits.softmax(-1), tokens.labels, weight)
    return Reference(reference.vector, reference.entropy, tokens.log_probs, known)  # exact even where p underflows


def forward_kl(reference: Reference, tokens: AnswerTokens) -> Tensor:
    """KL(reference || student) of each answer token from the reduced reference.

    Returns:
        ``[T]`` nats, >= 0 up to rounding in fp32, also where the model is in bf16; gradient in the logits is ``q - p``.
    """
    return tokens.log_normaliser - (reference.vector * tokens.states).sum(-1) - reference.entropy


def token_kl(p: Tensor, logits: Tensor, direction: str = "forward") -> Tensor:
    """``[T]`` nats, the KL of each token from full distributions: the plain way.

    Args:
        p: ``[T, V]`` reference probabilities.
        logits: ``[T, V]`` student logits.
        direction: ``forward`` is KL(reference || student), ``reverse`` is KL(student || reference).
    """
    log_q = logits.float().log_softmax(-1)
    if direction == "forward":
        return -torch.special.entr(p).sum(-1) - (p * log_q).sum(-1)
    log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
    return (log_q.exp() * (log_q - log_p)).sum(-1)
