"""ViKeR: Visual-Guided Key-Token Regularization (arXiv 2601.22020)."""

import logging
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.ideal import Double, Level, Reference
from viker_lightning.models import AnswerTokens

from .base import Batch, Forget, Irrelevant, Method, Preparation, check_doubles
from .retain import add_retain, retain

log = logging.getLogger(__name__)

KEY_ENTROPY = 0.5
"""Entropy (nats) above which a token counts as a key token in reports; losses never use it."""


class ViKeR(Method):
    """Visual-guided key-token regularisation (ViKeR, arXiv 2601.22020): ascent held to what irrelevant images predict.

    ``L = -CE_forget + lam * mean_t KL(pbar_t || p_t) [+ retain_weight * CE_retain]``

    Followed: the paper; there is no published code.

    Differs: the paper was not available in full when this was written: k = 5 and the form of the loss are its; ``lam``,
    the direction of the KL and the mean over tokens are read from its notation, and no retain term is its main setting.

    pbar_t, the ideal distribution, is the mean of the frozen model's predictions behind k irrelevant images, question
    and answer prefix being the sample's own. The gradient of the KL in the logits is ``p_t - pbar_t``: close to
    nothing on grammar, large on key (private) tokens.

    With the gradient of the ascent the sum has ``(lam - 1) p + e_y - lam pbar``, e_y being 1 at the answer token y. It
    vanishes at ``p_y = (lam pbar_y - 1) / (lam - 1)``, below pbar_y, and only where ``lam pbar_y > 1`` and lam > 1.
    Elsewhere (on every token if lam <= 1, on most key tokens if it is 3) ascent wins: p_y goes to 0 and the loss has
    no lower bound. That is the paper's loss; ``hinge`` and ``none`` are ours and end at ``p = pbar`` for every lam > 0.

    Args:
        lam: weight of the regulariser; 0 is plain gradient ascent.
        k: number of irrelevant images.
        images: ``scenes``, ``people`` or ``pets`` (drawn), ``photos`` (scikit-image's), a folder of images, or
            ``retain`` or ``forget``: the benchmark's own people, forgotten ones possibly seeing themselves.
        direction: ``forward`` is KL(ideal || student), the paper's; ``reverse`` is KL(student || ideal), with which
            ``full`` has no lower bound for any lam.
        same_image: ablation "without vision reference": the frozen model sees the forget image itself.
        ascent: ``full`` is -CE_forget, the paper's; ``hinge`` is ``+ hinge * mean_t max(0, log p_y - log pbar_y)``
            in its place, which pulls only while the answer is likelier than ideal; ``none`` leaves the regulariser
            alone. True and false, as configs before these had it, are ``full`` and ``none``.
        hinge: weight of the hinge; used by ``ascent: hinge`` alone.
        ascent_clip: with ``full``, tokens whose loss exceeds this many nats are not pushed further; ``None`` never
            stops.
        retain_weight: weight of the cross-entropy on the retain set; 0 uses no retain data.
        per: average over answer ``token`` s, or over ``question`` s so that long answers do not count more.
        doubles: ours: how many of the k images, drawn for each person, pbar is the mean over; ``None`` is all of them.
        names: with ``doubles``, a file with names, one a line, for questions without photo; ``None`` is invented ones.
    """

    answers_only = True

    def __init__(  # noqa: PLR0913 - options of a run
        self,
        lam: float = 1.0,
        k: int = 5,
        images: str = "scenes",
        direction: Literal["forward", "reverse"] = "forward",
        same_image: bool = False,
        ascent: Literal["full", "hinge", "none"] | bool = "full",
        hinge: float = 1.0,
        ascent_clip: float | None = None,
        retain_weight: float = 0.0,
        per: Literal["token", "question"] = "token",
        doubles: int | None = None,
        names: str | None = None,
    ) -> None:
        pull: str = ("none", "full")[ascent] if isinstance(ascent, bool) else ascent
        if lam == 0 and pull == "none" and retain_weight == 0:
            raise UserError("ViKeR: lam=0, ascent=none and retain_weight=0 leave nothing to optimise; turn one on")
        if lam < 0 or k < 1 or retain_weight < 0:
            raise UserError(f"ViKeR: lam={lam} and retain_weight={retain_weight} must be >= 0, k={k} must be >= 1")
        if hinge <= 0:
            raise UserError(f"ViKeR: hinge={hinge} must be > 0; ascent=none goes without it")
        if ascent_clip is not None and pull != "full":
            raise UserError(f"ViKeR: ascent_clip={ascent_clip} goes with ascent=full, found ascent={pull}; drop one")
        self.lam, self.k, self.images, self.direction = lam, k, images, direction
        self.ascent, self.hinge, self.ascent_clip = pull, hinge, ascent_clip
        self.retain_weight, self.per = retain_weight, per
        check_doubles("ViKeR", doubles, k, names)
        if same_image and doubles is not None:
            raise UserError(f"ViKeR: doubles={doubles} are images of others, same_image shows the person's; drop one")
        self.doubles, self.names = doubles, names
        self.reference = "own" if same_image else "irrelevant" if doubles is None else "double"
        level: Level = "full" if lam > 0 and direction == "reverse" else "kl"
        if same_image:
            forget = Forget(own=level)
        elif doubles is None:
            forget = Forget(irrelevant=Irrelevant(images, k, level))
        else:
            forget = Forget(double=Double(images, k, doubles, level, names))
        self.needs = (forget if lam > 0 or pull == "hinge" else Forget(), *retain(retain_weight))

    @override
    def before_training(self, run: Preparation) -> None:
        """Says, once, if nothing in the loss stops ascent on any token."""
        unbounded = self.lam <= 1 or self.direction == "reverse"
        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        if unbounded and first and self.ascent == "full" and self.ascent_clip is None:
            log.warning(
                "ViKeR: with ascent=full, lam=%s and direction=%s nothing stops ascent on any token: the loss has no "
                "lower bound; ascent=hinge, ascent=none or ascent_clip give it one, and so does lam > 1 with "
                "direction=forward on tokens where lam times the ideal probability exceeds 1 (docs/concepts.md)",
                self.lam,
                self.direction,
            )

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """See the class; all terms are means in nats."""
        forget = batch.forget
        terms: dict[str, Tensor] = {}
        total = forget.hidden.new_zeros(())
        if self.ascent == "full":
            terms["forget_ce"] = forget.mean(-forget.log_probs, self.per)
            total = total - forget.mean(
                (-forget.log_probs).clamp(max=torch.inf if self.ascent_clip is None else self.ascent_clip), self.per
            )
        elif self.ascent == "hinge":
            excess = forget.log_probs - batch.reference("forget", self.reference).log_prob
            terms["hinge"] = forget.mean(excess.relu(), self.per)
            total = total + self.hinge * terms["hinge"]
        if self.lam > 0:
            terms["ideal_kl"] = forget.mean(batch.kl("forget", self.reference, self.direction), self.per)
            total = total + self.lam * terms["ideal_kl"]
            terms |= gradient_weights(batch.reference("forget", self.reference), forget)
        return add_retain(batch, {"loss": total} | terms, self.retain_weight, self.per)

    @override
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
