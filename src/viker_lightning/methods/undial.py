"""Self-distillation from the vanilla model with the answer's logit lowered."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import check_least

from .base import Batch, Forget, Method
from .retain import add_retain, retain


class UNDIAL(Method):
    """UNDIAL (Dong et al. 2024, arXiv 2402.10052): the vanilla model is imitated with the answer's logit lowered.

    ``L = -mean_t sum_v q_t(v) log p_t(v) + retain_weight * CE_retain`` with ``q_t = softmax(z0_t - beta * e_y)``, z0
    being the vanilla model's logits and e_y 1 at the answer token y. Its least is at ``p = q``, so nothing diverges.

    Followed: locuslab/open-unlearning src/trainer/utils.py L70-99, src/trainer/unlearn/undial.py and
    configs/trainer/UNDIAL.yaml at d3d7cf9.

    Differs: the mean there is over all positions, prompt and padding too, and a label that is to be ignored, -100,
    lowers the logit of the hundredth token from the end of the vocabulary; here answer tokens alone count, as in
    JunkaiChen1/Open-MMunlearning src/trainer/utils.py at 60def72. So a loss, and what a ``retain_weight`` does, cannot
    be compared with numbers of the former.

    Args:
        beta: by how much the answer's logit is lowered, >= 0; at 0 the vanilla model is imitated as it is.
        retain_weight: weight of the cross-entropy on the retain set; 0, the paper's, uses no retain data.
    """

    answers_only = True

    def __init__(self, beta: float = 10.0, retain_weight: float = 0.0) -> None:
        check_least("UNDIAL", 0, beta=beta, retain_weight=retain_weight)
        self.beta, self.retain_weight = beta, retain_weight
        self.needs = (Forget(own="full"), *retain(retain_weight))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget = batch.forget
        # Probabilities of the other tokens are exact however sure the vanilla model is; 1 - p(y) would not be.
        lowered = (batch.reference("forget", "own").log_prob - self.beta).exp()
        target = batch.distributions["forget", "own"].scatter(-1, forget.labels[:, None], lowered[:, None])
        target = target / target.sum(-1, keepdim=True)
        loss = forget.mean(-(target * forget.logits.log_softmax(-1)).sum(-1))
        return add_retain(batch, {"loss": loss, "distillation_ce": loss}, self.retain_weight)
