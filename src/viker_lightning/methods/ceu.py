"""Cross-entropy towards what the student itself would say if the answer were impossible."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import check_least

from .base import Batch, Forget, Method
from .retain import add_retain, retain


class CEU(Method):
    """CE-U (Yang 2025, arXiv 2503.01224): the student learns its own prediction with the answer token taken out.

    ``L = -mean_t sum_v q_t(v) log p_t(v) [+ retain_weight * CE_retain]`` with ``q_t = softmax(z_t)`` where
    ``z_t(y_t) = -inf``, held fixed for the gradient, which is ``p - q``: it vanishes with ``p(y_t)``.

    Followed: locuslab/open-unlearning src/trainer/unlearn/ceu.py L7-96 at d3d7cf9.

    Differs: there the mean is over the tokens that count, and a step in which no answer is longer than ``skip`` has no
    loss but nan (L58-61, of nothing); here it is over all answer tokens, those that are skipped being 0. The retain
    term is ours.

    Args:
        skip: how many first tokens of each answer are left alone, as the paper's footnote has it.
        retain_weight: weight of the cross-entropy on the retain set; 0, the paper's, uses no retain data.
    """

    answers_only = True

    def __init__(self, skip: int = 1, retain_weight: float = 0.0) -> None:
        check_least("CEU", 0, skip=skip, retain_weight=retain_weight)
        self.skip, self.retain_weight = skip, retain_weight
        self.needs = (Forget(), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget = batch.forget
        without = forget.logits.detach().scatter(-1, forget.labels[:, None], float("-inf"))
        ce = -(without.softmax(-1) * forget.logits.log_softmax(-1)).sum(-1)
        loss = forget.mean(ce * (forget.places >= self.skip))
        return add_retain(batch, {"loss": loss, "unlearning_ce": loss}, self.retain_weight)
