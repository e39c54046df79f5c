"""Jensen-Shannon divergence towards a refusal, which has a bound."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.data.records import VQA, Labels
from viker_lightning.errors import UserError

from .base import Batch, Forget, Method, Preparation, Retain


class JensUn(Method):
    """JensUn (Singh et al. 2025, arXiv 2509.02820): each answer token becomes one of a refusal, at a bounded loss.

    ``L = mean_t JSD(p_t, e(r_t)) on the forget set + retain_weight * mean_t JSD(p0_t, p_t) on the retain set``, e(r)
    being 1 at the token r, r_t the tokens of the refusal over and over from the first token of each answer, and p0 the
    vanilla model. Both are 0 to ln 2, so nothing diverges; the first is
    ``ln 2 + (p ln p - (1 + p) ln(1 + p)) / 2`` with ``p = p_t(r_t)``.

    Followed: nmndeep/JensUn-Unlearning src/trainer/utils.py L93-136 and L260-327, src/trainer/unlearn/jensun.py and
    configs/trainer/JensUn.yaml at 9d0cfd5.

    Differs: until March 2026 (src/trainer/utils.py L160-192 at 925e221) the target gave every token of the refusal
    probability 1 at every position, so that it was no distribution, and the mean was over prompt and padding too.
    Probabilities are not clamped here. The ids of the refusal are those of the model at hand, not a table of two
    models'.

    Args:
        retain_weight: weight of the divergence on the retain set.
        refusal: what the answer tokens become.
    """

    needs = (Forget(), Retain(own="full"))
    answers_only = True

    def __init__(self, retain_weight: float = 1.0, refusal: str = "No idea") -> None:
        if retain_weight <= 0 or not refusal.strip():
            raise UserError(f"JensUn: retain_weight={retain_weight} must be > 0, refusal={refusal!r} not be empty")
        self.retain_weight, self.refusal = retain_weight, refusal
        self.ids: tuple[int, ...] = ()

    @override
    def before_training(self, run: Preparation) -> None:
        """Looks up the tokens of the refusal, as they are where it is an answer."""
        encoder = run.mllm.encoder
        answer = encoder.encode(VQA("", self.refusal, labels=Labels.UNENDED), False).answer
        self.ids = tuple(one for one in answer if one != encoder.eos)  # which a chat template may have

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        forget = batch.forget
        wanted = torch.tensor(self.ids, device=forget.labels.device)[forget.places % len(self.ids)]
        log_p = forget.logits.gather(-1, wanted[:, None])[:, 0] - forget.log_normaliser
        forget_js = forget.mean(refusal_js(log_p))
        retain_js = batch.retain.mean(js(batch.distributions["retain", "own"], batch.retain.logits))
        return {"loss": forget_js + self.retain_weight * retain_js, "forget_js": forget_js, "retain_js": retain_js}


def refusal_js(log_p: Tensor) -> Tensor:
    """Jensen-Shannon divergence of a distribution from one that is sure of a token, from that token's ``[T]`` log p."""
    p = log_p.exp()
    return math.log(2) + (p * log_p - (1 + p) * p.log1p()) / 2


def js(p: Tensor, logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of ``[T, V]`` reference probabilities and student logits: ``[T]`` nats, 0 to ln 2."""
    log_q = logits.log_softmax(-1)
    log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (p * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(-1) / 2
