"""What a method sees of a model: the answer tokens of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from viker_lightning.data.packing import PackedBatch

from .logits import logits_of


@dataclass
class AnswerTokens:
    """All answer tokens of a batch; logits are computed on first use, in fp32 whatever the model is kept in.

    Attributes:
        hidden: ``[T, d]`` last hidden states at the positions that predict the answer tokens.
        labels: ``[T]`` ids of the answer tokens.
        question: ``[T]`` index of the question, 0..Q-1, each token belongs to.
        private: ``[T]`` bool, token of a private span (known for benchmarks that record it; never used by a loss).
        n_questions: Q.
        head: the output embedding, ``[d] -> [V]``.
        step: tokens and questions of the whole training step that these are a part of; ``None`` if they are all.
        layers: ``[T, d]`` outputs of decoder layers at the same positions, in the model's type, by the index they were
            asked by; that of the last layer is not normalised yet.
        first: number of the first question among all of a stream, where these are a part of a pass over it.
    """

    hidden: Tensor
    labels: Tensor
    question: Tensor
    private: Tensor
    n_questions: int
    head: nn.Module
    step: tuple[float, float] | None = None
    layers: dict[int, Tensor] = field(default_factory=dict)
    first: int = 0

    @classmethod
    def from_batch(
        cls, batch: PackedBatch, hidden: Tensor, head: nn.Module, layers: dict[int, Tensor] | None = None
    ) -> "AnswerTokens":
        """The answer tokens of a batch, from ``[T, d]`` hidden states at its answer positions."""
        labels, question, private = batch.labels, batch.question, batch.private
        return cls(hidden, labels, question, private, batch.n_questions, head, layers=layers or {})

    @classmethod
    def none(cls, head: nn.Module, step: tuple[float, float], layers: Sequence[int] = ()) -> "AnswerTokens":
        """No tokens, and nothing of the layers asked for: a part of a step in which a stream has run out."""
        weight = head.get_parameter("weight")
        ids = torch.zeros(0, dtype=torch.long, device=weight.device)
        nothing = weight.new_zeros(0, weight.shape[1])
        return cls(nothing, ids, ids, ids.bool(), 0, head, step, {index: nothing for index in layers})

    @cached_property
    def states(self) -> Tensor:
        """``[T, d]`` :attr:`hidden` in fp32, where gradients of a loss's terms meet before they are rounded."""
        return self.hidden.float()

    @cached_property
    def logits(self) -> Tensor:
        """``[T, V]`` next-token logits, fp32."""
        return logits_of(self.head, self.hidden, self.states)

    @cached_property
    def log_normaliser(self) -> Tensor:
        """``[T]`` log of the sum of the exponentiated logits."""
        return self.logits.logsumexp(-1)

    @cached_property
    def log_probs(self) -> Tensor:
        """``[T]`` log-probability of each answer token, <= 0."""
        return self.logits.gather(-1, self.labels[:, None])[:, 0] - self.log_normaliser

    @property
    def places(self) -> Tensor:
        """``[T]`` place of each token in its answer, from 0; the tokens of an answer stand together."""
        lengths = torch.bincount(self.question, minlength=self.n_questions)
        starts = lengths.cumsum(0) - lengths
        return torch.arange(len(self.question), device=starts.device) - starts[self.question]

    def sum_by_question(self, values: Tensor) -> Tensor:
        """``[T] -> [Q]``: adds up token values question by question."""
        return values.new_zeros(self.n_questions).index_add(0, self.question, values)

    def mean_by_question(self, values: Tensor) -> Tensor:
        """``[T] -> [Q]``: averages token values question by question."""
        return self.sum_by_question(values) / self.sum_by_question(torch.ones_like(values))

    def mean(self, values: Tensor, per: str = "token") -> Tensor:
        """Averages token values ``[T]`` over tokens, or over questions after averaging within each.

        The mean is over the whole step: where a step passes the model in parts, on one device or on several, the parts
        of a mean add up to it.

        Args:
            values: ``[T]``.
            per: ``token`` or ``question``.
        """
        return self.token_share(values) if per == "token" else self.question_share(self.mean_by_question(values))

    def token_share(self, values: Tensor) -> Tensor:
        """What these tokens ``[T]`` add to the step's mean over tokens."""
        return values.sum() / (self.step[0] if self.step else max(len(values), 1))

    def question_share(self, values: Tensor) -> Tensor:
        """What these questions ``[Q]`` add to the step's mean over questions."""
        return values.sum() / (self.step[1] if self.step else max(len(values), 1))
