"""A student that departs from its teacher on the forget set and stays with it on the retain set, in turns."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Forget, Method, Retain


class SCRUB(Method):
    """SCRUB (Kurmanji et al. 2023, arXiv 2302.09880): steps away from the vanilla model on the forget set, and back.

    ``L = -mean_t KL(p0_t || p_t) on the forget set`` in steps that forget, and
    ``L = retain_weight * CE_retain + kl_weight * mean_t KL(p0_t || p_t) on the retain set`` in all others, p0 being the
    vanilla model. Of every ``every`` steps the last one forgets, until step ``until``; the steps after that mend.

    Followed: meghdadk/SCRUB thirdparty/repdistiller/helper/loops.py L137-245 and small_scale_unlearning.ipynb at
    98ffb11.

    Differs: turns there are whole passes, forget set first, for ``msteps`` passes; here they are steps, and the first
    one is the retain set's, since a student that is its teacher has no gradient of their KL. Every step asks both
    streams, the weight of the one whose turn it is not being 0. There is no temperature (2 there), and the best
    checkpoint is not gone back to (SCRUB+R). In scrub.py at 4ccce66 the optimizer has the weights of a model that is
    neither student nor teacher (L67, L72), so that the student never moves, and ``msteps`` are one pass more (L84).

    Args:
        retain_weight: weight of the cross-entropy on the retain set.
        kl_weight: weight of the KL on the retain set.
        every: how many steps a turn has; the last of them forgets.
        until: from which step on nothing is forgotten; ``None`` for never.
    """

    needs = (Forget(own="kl"), Retain(own="kl"))
    answers_only = True

    def __init__(
        self, retain_weight: float = 1.0, kl_weight: float = 0.5, every: int = 2, until: int | None = None
    ) -> None:
        if retain_weight <= 0 or kl_weight < 0 or every < 2 or (until is not None and until < every):
            raise UserError(
                f"SCRUB: retain_weight={retain_weight} must be > 0, kl_weight={kl_weight} >= 0, every={every} >= 2, "
                f"until={until} >= every or null"
            )
        self.retain_weight, self.kl_weight, self.every, self.until = retain_weight, kl_weight, every, until

    def forgets(self, step: int) -> bool:
        """Whether a step, counted from 0, is one of the forget set's."""
        return step % self.every == self.every - 1 and (self.until is None or step < self.until)

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_kl = batch.forget.mean(batch.kl("forget", "own"))
        retain_kl = batch.retain.mean(batch.kl("retain", "own"))
        retain_ce = batch.retain.mean(-batch.retain.log_probs)
        turn = float(self.forgets(batch.step))
        mend = self.retain_weight * retain_ce + self.kl_weight * retain_kl
        loss = (1 - turn) * mend - turn * forget_kl
        return {"loss": loss, "forget_kl": forget_kl, "retain_kl": retain_kl, "retain_ce": retain_ce}
