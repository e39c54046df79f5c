"""Distillation from what the vanilla model says with less to go by."""

from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.ideal import Noised

from .base import Batch, Forget, Method, Retain


class VGID(Method):
    """VGID (Chen et al. 2026, arXiv 2606.00105): the student learns what the vanilla model says of a noised image.

    ``L = mean_t KL(p0(. | noised image, instruction, x, y_<t) || p_t) on the forget set
    + retain_weight * mean_t KL(p0_t || p_t) on the retain set``, p0 being the vanilla model. There is no ascent: the
    least is where the student says of the person what the vanilla model says of noise.

    Followed: the paper's formula. JunkaiChen1/Open-MMunlearning has it as src/trainer/unlearn/vgid.py in commits later
    than 60def72, which was at hand.

    Differs: how strong the paper's noise is, and what its instruction says, is not known to us; both are settings, and
    the noise on an image is the same in all steps. Answer tokens alone count.

    Args:
        noise: standard deviation of Gaussian noise on the image, 0 to 1 of the range of pixels.
        instruction: what stands before the question, to end with a full stop; empty for noise alone.
        retain_weight: weight of the KL on the retain set.
    """

    answers_only = True

    def __init__(
        self,
        noise: float = 0.5,
        instruction: str = "You do not know the person in this image and say so.",
        retain_weight: float = 1.0,
    ) -> None:
        if not 0 <= noise <= 1:
            raise UserError(f"VGID.noise: found {noise}, expected 0 to 1")
        if not (noise or instruction):
            raise UserError("VGID: noise=0 without instruction asks the vanilla model what it says anyway; set one")
        if retain_weight <= 0:
            raise UserError(f"VGID: retain_weight={retain_weight} must be > 0")
        self.noise, self.instruction, self.retain_weight = noise, instruction, retain_weight
        self.needs = (Forget(noised=Noised(noise, instruction)), Retain(own="kl"))

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_kl = batch.forget.mean(batch.kl("forget", "noised"))
        retain_kl = batch.retain.mean(batch.kl("retain", "own"))
        return {"loss": forget_kl + self.retain_weight * retain_kl, "forget_kl": forget_kl, "retain_kl": retain_kl}
