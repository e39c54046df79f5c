"""Gradient ascent, and gradient ascent balanced by the retain set."""

from __future__ import annotations

from copy import copy

from torch import Tensor

from viker_lightning.ideal import forward_kl

from .base import Batch, Method, require_reference, retain_tokens


class GradientAscent(Method):
    """``L = -CE_forget``: the plainest way to forget, and to break a model."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over answer tokens, nats."""
        return {"loss": batch.forget.mean(batch.forget.log_probs)}


class GradientDifference(Method):
    """``L = -CE_forget + retain_weight * CE_retain``, summed in every step (open-unlearning src/trainer/utils.py).

    MLLMU-Bench's own script takes a whole pass of ``-CE_forget`` and then one of ``CE_retain`` in every epoch
    (baselines/GA_Difference.py L409-441), and so does this under the published protocol.

    Args:
        retain_weight: weight of the retain term.
    """

    uses_retain = True

    def __init__(self, retain_weight: float = 1.0) -> None:
        self.retain_weight = retain_weight

    def published(self) -> GradientDifference:
        """The same terms in passes that take turns."""
        method = copy(self)
        method.in_passes = True
        return method

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain = retain_tokens(batch)
        retain_ce = retain.mean(-retain.log_probs)
        return {
            "loss": self.retain_weight * retain_ce - forget_ce,
            "forget_ce": forget_ce.detach(),
            "retain_ce": retain_ce.detach(),
        }


class KLMinimization(Method):
    """``L = -CE_forget + retain_weight * KL(vanilla || student) on the retain set``, at answer positions only.

    The formula is open-unlearning's (src/trainer/utils.py L17-31); published MLLM scripts take the KL over prompt,
    image and padding positions too, which makes its scale depend on padding. The vanilla distribution enters through
    its projection, exactly.

    Args:
        retain_weight: weight of the KL.
    """

    uses_retain = True
    retain_reference = True

    def __init__(self, retain_weight: float = 1.0) -> None:
        self.retain_weight = retain_weight

    def published(self) -> KLMinimization:
        """As in the script, whose formula differs, too."""
        return PublishedKLMinimization(self.retain_weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain = retain_tokens(batch)
        retain_kl = retain.mean(forward_kl(require_reference(batch.retain_reference), retain))
        return {
            "loss": self.retain_weight * retain_kl - forget_ce,
            "forget_ce": forget_ce.detach(),
            "retain_kl": retain_kl.detach(),
        }


class PublishedKLMinimization(KLMinimization):
    """MLLMU-Bench's script: a pass of ``-CE_forget``, then one of ``CE_retain + retain_weight * KL``.

    The KL is summed over the tokens of a batch and divided by its questions alone (baselines/KL_Min.py L492-556), so
    that it grows with their length. Not as published: padding and image positions are left out of the sum.
    """

    in_passes = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over label tokens, and a mean over questions of sums over label tokens; nats."""
        forget_ce = batch.forget.mean(-batch.forget.log_probs)
        retain = retain_tokens(batch)
        retain_ce = retain.mean(-retain.log_probs)
        token_kl = forward_kl(require_reference(batch.retain_reference), retain)
        retain_kl = retain.question_share(retain.sum_by_question(token_kl))
        return {
            "loss": retain_ce + self.retain_weight * retain_kl - forget_ce,
            "forget_ce": forget_ce.detach(),
            "retain_ce": retain_ce.detach(),
            "retain_kl": retain_kl.detach(),
        }
