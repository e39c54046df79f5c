"""Direct preference optimization for unlearning: IdkPO with refusals, AltPO with plausible answers."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError, check_least
from viker_lightning.metrics import REFUSALS

from .base import Alternative, Batch, Forget, Method, Strangers
from .retain import add_retain, retain

LAST = -1
"""The decoder layer whose states tell questions apart."""


class DPO(Method):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290) for unlearning: another answer is preferred to the true one.

    ``L = -(2/beta) * mean_q logsigmoid(beta * (r(alternative_q) - r(forget_q))) + retain_weight * CE_retain`` with
    ``r(y) = sum_t (log p(y_t) - log p0(y_t))``, p0 being the vanilla model. With refusals as alternatives this is
    IdkPO (IdkDPO; Maini et al. 2024, arXiv 2401.06121), with plausible answers AltPO (Mekala et al. 2024,
    arXiv 2409.13474).

    Followed: locuslab/open-unlearning src/trainer/utils.py L47-67 and src/trainer/unlearn/dpo.py L12-33 at d3d7cf9.

    Differs: the published AltPO samples five answers to a question from the model, which is told to make them up; here
    they are what the frozen model says behind strangers, or wrong ones of the benchmark. The refusal to a question
    stays the same in all steps, there it is drawn anew. CLEAR's script (mm/trainer.py L364-396) overwrites the loss, so
    that refusal training is left (:class:`~viker_lightning.methods.IDK`); this one does not. A pair cannot be taken
    apart, so a step passes the model at once. Where the data correct an answer, its correction is preferred, whatever
    ``alternative`` says. A question whose own alternative holds a private span has none and is
    left out: which are left is told by the frozen model's state in front of the answer, which is the same for both.

    Args:
        beta: inverse temperature, > 0.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
        alternative: what is preferred: sentences, of which one is drawn for each question by its text; ``wrong``, a
            wrong answer of the benchmark, or another person's to the same question; or ``own``, what the frozen model
            says behind a stranger.
        strangers: ``people`` (drawn) or a folder of portraits, for ``own``.
        stranger_count: how many, for ``own``.
    """

    answers_only = True
    whole_steps = True

    def __init__(
        self,
        beta: float = 0.1,
        retain_weight: float = 1.0,
        alternative: Literal["wrong", "own"] | tuple[str, ...] = REFUSALS,
        strangers: str = "people",
        stranger_count: int = 20,
    ) -> None:
        if beta <= 0 or retain_weight < 0:
            raise UserError(f"DPO: beta={beta} must be > 0, retain_weight={retain_weight} >= 0")
        if not alternative:
            raise UserError("DPO: alternative is empty; give at least one sentence, or wrong, or own")
        if isinstance(alternative, str) and alternative not in ("wrong", "own"):
            raise UserError(f"DPO: alternative={alternative!r} must be wrong, own or sentences in a list")
        check_least("DPO", 1, stranger_count=stranger_count)
        self.beta, self.retain_weight = beta, retain_weight
        self.alternative = alternative if isinstance(alternative, str) else tuple(alternative)
        self.strangers, self.stranger_count = strangers, stranger_count
        self.layers = (LAST,) if alternative == "own" else ()
        answers = Strangers(strangers, stranger_count) if self.alternative == "own" else self.alternative
        self.needs = (Forget(own="log_prob"), Alternative(answers, own="log_prob"), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over pairs."""
        true, other = self._log_ratio(batch, "forget"), self._log_ratio(batch, "alternative")
        if self.alternative == "own":
            asked, answered = (self._in_front(batch, stream) for stream in ("forget", "alternative"))
            true = true[torch.cdist(answered, asked).argmin(-1)] if len(answered) else true[:0]
        share = batch.alternative.question_share
        loss = -2 / self.beta * share(F.logsigmoid(self.beta * (other - true)))
        terms = {"loss": loss, "log_ratio": share(true), "alternative_log_ratio": share(other)}
        return add_retain(batch, terms, self.retain_weight)

    @staticmethod
    def _log_ratio(batch: Batch, stream: str) -> Tensor:
        """``[Q]`` of the answers, student against vanilla model, nats; both streams have their questions in order."""
        tokens = batch[stream]
        return tokens.sum_by_question(tokens.log_probs - batch.reference(stream, "own").log_prob)

    @staticmethod
    def _in_front(batch: Batch, stream: str) -> Tensor:
        """``[Q, d]`` the frozen model's state that predicts the first token of an answer: it has seen the question."""
        return batch.hidden(stream, LAST, "own")[batch[stream].places == 0]
