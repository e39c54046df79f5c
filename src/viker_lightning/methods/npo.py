"""Negative preference optimization (Zhang et al. 2024, arXiv 2404.05868)."""

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError, check_least
from viker_lightning.storage.files import check_folder

from .base import Batch, Forget, Gold, Method
from .retain import add_retain, retain


class NPO(Method):
    """Negative preference optimisation (NPO; Zhang et al. 2024, arXiv 2404.05868): a preference without a winner.

    ``L = -(2/beta) * mean_q logsigmoid(-beta * (log p(y_q) - log p0(y_q))) [+ retain_weight * CE_retain]``, with
    log-probabilities summed over the answer tokens of a question, p0 being the vanilla model.

    Followed: locuslab/open-unlearning src/trainer/utils.py L34-67.

    Differs: nothing from there. MLLMU-Bench's script (baselines/NPO.py L256-266) has the mean loss of a batch in place
    of a question's sum, and a model trained on the retain set as reference, and so do runs under the published protocol
    (:class:`~viker_lightning.training.published.PublishedNPO`). CLEAR's (mm/trainer.py L343-353) never reads the
    answer.

    Args:
        beta: inverse temperature; towards 0 this becomes gradient ascent.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
        gold: folder of a model trained on the retain set only, to be the reference in place of the vanilla model.
    """

    def __init__(self, beta: float = 0.1, retain_weight: float = 0.0, gold: str | None = None) -> None:
        if beta <= 0:
            raise UserError(f"NPO: beta={beta} must be > 0")
        check_least("NPO", 0, retain_weight=retain_weight)
        check_folder("model.method.gold", gold)
        self.beta, self.retain_weight, self.gold = beta, retain_weight, gold
        self.reference = "own" if gold is None else "gold"
        forget = Forget(own="log_prob") if gold is None else Forget(gold=Gold(gold, "log_prob"))
        self.needs = (forget, *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over questions."""
        forget = batch.forget
        log_ratio = forget.sum_by_question(forget.log_probs - batch.reference("forget", self.reference).log_prob)
        loss = -2 / self.beta * forget.question_share(F.logsigmoid(-self.beta * log_ratio))
        terms = {"loss": loss, "log_ratio": forget.question_share(log_ratio)}
        return add_retain(batch, terms, self.retain_weight)
