"""NPO without a reference model, on log-probabilities a token."""

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Forget, Method
from .retain import add_retain, retain


class SimNPO(Method):
    """SimNPO (Fan et al. 2024, arXiv 2410.07163): NPO without a reference model, on the mean of an answer's tokens.

    ``L = -(2/beta) * mean_q logsigmoid(beta * (CE_q - delta)) + retain_weight * CE_retain`` with
    ``CE_q = -mean_t log p(y_t)`` over the answer tokens of a question.

    Followed: locuslab/open-unlearning src/trainer/unlearn/simnpo.py L13-31 and configs/trainer/SimNPO.yaml at d3d7cf9.

    Differs: both terms have a weight there (gamma 0.125 and alpha 1); here the first one has none, and
    ``retain_weight`` 8 is their ratio. The paper writes ``gamma = beta * delta``.

    Args:
        beta: inverse temperature, > 0; towards 0 all answers are pushed alike, short and long.
        delta: cross-entropy, nats a token, from which an answer counts as forgotten.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
    """

    answers_only = True

    def __init__(self, beta: float = 4.5, delta: float = 0.0, retain_weight: float = 8.0) -> None:
        if beta <= 0 or retain_weight < 0:
            raise UserError(f"SimNPO: beta={beta} must be > 0, retain_weight={retain_weight} >= 0")
        self.beta, self.delta, self.retain_weight = beta, delta, retain_weight
        self.needs = (Forget(), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over questions."""
        forget = batch.forget
        ce = forget.mean_by_question(-forget.log_probs)
        loss = -2 / self.beta * forget.question_share(F.logsigmoid(self.beta * (ce - self.delta)))
        terms = {"loss": loss, "question_ce": forget.question_share(ce)}
        return add_retain(batch, terms, self.retain_weight)
