"""ViKeR: Visual-Guided Key-Token Regularization (arXiv 2601.22020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference, forward_kl, token_kl
from viker_lightning.models import AnswerTokens

from .base import Batch, Method, known, retain_tokens

KEY_ENTROPY = 0.5
"""Entropy (nats) above which a token counts as a key token in reports; losses never use it."""


class ViKeR(Method):
    """Gradient ascent on the forget set, held to what a model that never saw the image would say.

        L = -CE_forget + lam * mean_t KL(pbar_t || p_t) + retain_weight * CE_retain

    pbar_t, the ideal distribution, is the mean of the frozen model's predictions behind k irrelevant images, question
    and answer prefix being the sample's own. The gradient of the KL in the logits is ``p_t - pbar_t``: close to
    nothing on grammar, large on key (private) tokens.

    The paper was not available in full when this was written: k = 5 and the form of the loss are its; ``lam``, the
    direction of the KL and the mean over tokens are read from its notation, and no retain term is its main setting.

    Args:
        lam: weight of the regulariser; 0 is plain gradient ascent.
        k: number of irrelevant images.
        images: ``scenes``, ``people`` or ``pets`` (drawn), ``photos`` (scikit-image's), a folder of images, or
            ``retain`` or ``forget``: the benchmark's own people, forgotten ones possibly seeing themselves.
        direction: ``forward`` is KL(ideal || student), the paper's; ``reverse`` is KL(student || ideal).
        same_image: ablation "without vision reference": the frozen model sees the forget image itself.
        ascent: whether the gradient-ascent term is used; without it only the regulariser acts.
        ascent_clip: tokens whose loss exceeds this many nats are not pushed further; ``None`` never stops.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
        per: average over answer ``token`` s, or over ``question`` s so that long answers do not count more.
    """

    answers_only = True

    def __init__(
        self,
        lam: float = 1.0,
        k: int = 5,
        images: str = "scenes",
        direction: Literal["forward", "reverse"] = "forward",
        same_image: bool = False,
        ascent: bool = True,
        ascent_clip: float | None = None,
        retain_weight: float = 0.0,
        per: Literal["token", "question"] = "token",
    ) -> None:
        if lam == 0 and not ascent and retain_weight == 0:
            raise UserError("ViKeR: lam=0, ascent=false and retain_weight=0 leave nothing to optimise; turn one on")
        if lam < 0 or k < 1 or retain_weight < 0:
            raise UserError(f"ViKeR: lam={lam} and retain_weight={retain_weight} must be >= 0, k={k} must be >= 1")
        self.lam, self.k, self.images, self.direction = lam, k, images, direction
        self.ascent, self.ascent_clip, self.retain_weight, self.per = ascent, ascent_clip, retain_weight, per
        self.uses_retain = retain_weight > 0
        if lam > 0:
            self.reference = "own" if same_image else "irrelevant"
            self.needs_distribution = direction == "reverse"

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """See the class; all terms are means in nats."""
        forget = batch.forget
        terms: dict[str, Tensor] = {}
        total = forget.hidden.new_zeros(())
        if self.ascent:
            terms["forget_ce"] = forget.mean(-forget.log_probs, self.per).detach()
            total = total - forget.mean(
                (-forget.log_probs).clamp(max=torch.inf if self.ascent_clip is None else self.ascent_clip), self.per
            )
        if self.lam > 0:
            kl = self._kl(batch)
            terms["ideal_kl"] = forget.mean(kl, self.per)
            total = total + self.lam * terms["ideal_kl"]
            if batch.forget_reference is not None:
                terms |= gradient_weights(batch.forget_reference, forget)
        if self.uses_retain:
            retain = retain_tokens(batch)
            terms["retain_ce"] = retain.mean(-retain.log_probs, self.per)
            total = total + self.retain_weight * terms["retain_ce"]
        return {"loss": total} | {name: value.detach() for name, value in terms.items()}

    def _kl(self, batch: Batch) -> Tensor:
        if batch.forget_distribution is not None:
            return token_kl(batch.forget_distribution, batch.forget.logits, self.direction)
        return forward_kl(known(batch.forget_reference), batch.forget)

    def logged(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns shares of the regulariser's pull into means over key tokens and over the others."""
        rest = {name: value for name, value in terms.items() if name not in ("key", "pull_key", "pull_other")}
        if "key" not in terms:
            return rest
        classes = {"key": terms["key"], "other": 1 - terms["key"]}
        return rest | {f"gradient_weight_{n}": terms[f"pull_{n}"] / share for n, share in classes.items() if share > 0}


def gradient_weights(reference: Reference, forget: AnswerTokens, threshold: float = KEY_ENTROPY) -> dict[str, Tensor]:
    """How hard the regulariser pulls on key tokens and on the others.

    The pull on a token is the gradient of its KL in the answer token's logit, ``|p_t(y_t) - pbar_t(y_t)|``, 0 to 1. A
    token is called key where the ideal distribution's entropy exceeds ``threshold`` nats.

    Returns:
        Shares of the step's tokens: ``key``, how many are key, and ``pull_key`` and ``pull_other``, how much pull
        goes to either class.
    """
    pull = (forget.log_probs.detach().exp() - reference.log_prob.exp()).abs()
    key = (reference.entropy > threshold).float()
    shares = {"key": key, "pull_key": pull * key, "pull_other": pull * (1 - key)}
    return {name: forget.token_share(values) for name, values in shares.items()}
