"""SAM: any method, whose forgetting is to hold in a whole neighbourhood of the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.models import AnswerTokens

from .around import Around, nested
from .base import Batch, Method, Preparation
from .gradients import Gradient
from .gru import GRU
from .mmunlearner import MMUnlearner

FORGETS = ("forget", "alternative")
"""Streams whose gradient is taken at the perturbed weights; that of the others is taken where the weights are."""


class SAM(Around):
    """SAM (Fan et al. 2025, arXiv 2502.05374): any method, with its forget gradient taken where forgetting is worst.

    `g = grad_f L(w + rho * grad_f L(w) / |grad_f L(w)|) + grad_r L(w)`

    L is the loss of the method inside; grad_f is its gradient through what it reads of forget questions (``forget`` and
    ``alternative``), grad_r through what it reads of anything else. The first goes uphill by rho, over all trained
    weights together, so that what is forgotten stays so if the weights are moved a little, as fine-tuning does. A step
    passes forget questions twice.

    Followed: OPTML-Group/Unlearn-Smooth WMDP/src/unlearn/base.py L754-870 and MUSE/baselines/baselines/sam_iterative.py
    L121-226 (fc655ba), whose rho is 0.1 on WMDP and 0.01 on MUSE.

    Differs: there the weights are moved and moved back by adding and subtracting in their own type, so that bf16
    weights do not come back to where they were; here they are put back. There gradients are cleared in every pass, so
    that of accumulated batches the last alone counts, and is divided by their number; here a step's parts and batches
    add up. Its NPO on MUSE compares the logits of all words at all positions and reads no answer (L257); here the loss
    is that of the method inside.

    Args:
        method: the method inside.
        rho: how far uphill, as the norm of all weights' change.
    """

    def __init__(self, method: Method, rho: float = 0.01) -> None:
        super().__init__(method)
        if rho <= 0:
            raise UserError(f"SAM: rho={rho} must be > 0")
        reasons = {
            "its streams take turns (in_passes)": method.in_passes,
            "it takes no steps": not method.takes_steps,
            "it shapes gradients itself": any(isinstance(one, GRU | MMUnlearner | SAM) for one in nested(method)),
        }
        for reason, found in reasons.items():
            if found:
                raise UserError(f"SAM: {type(method).__name__} cannot be inside, for {reason}; name another method")
        self.rho = rho
        self.forgets: Gradient
        self._parts: list[Batch] = []

    @override
    def before_training(self, run: Preparation) -> None:
        self.method.before_training(run)
        self.forgets = Gradient(run, "SAM")

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """That of the method inside, whose gradient through the forget questions is noted."""
        terms = self.method.loss(batch)
        read = [h for s in FORGETS if s in batch.tokens for h in (batch[s].hidden, *batch[s].layers.values())]
        read = [h for h in read if h.requires_grad]
        if read and terms["loss"].requires_grad:
            slopes = torch.autograd.grad(terms["loss"], read, retain_graph=True, allow_unused=True)
            through = [(h * slope).sum() for h, slope in zip(read, slopes, strict=True) if slope is not None]
            self.forgets.add(torch.stack([one.float() for one in through]).sum())
        rest = {stream: constant(tokens) for stream, tokens in batch.tokens.items() if stream not in FORGETS}
        self._parts.append(replace(batch, tokens=rest))
        return terms

    @override
    def before_optimizer_step(self, model: nn.Module) -> None:
        """Puts the gradient at the perturbed weights in the place of that at the weights."""
        self.method.before_optimizer_step(model)
        parts, self._parts = self._parts, []
        here = self.forgets.mean()
        norm = torch.stack([slope.float().norm() for slope in here.values()]).norm()
        if not norm > 0:
            return
        before = {name: p.detach().clone() for name, p in self.forgets.weights.items()}
        with torch.no_grad():
            for name, p in self.forgets.weights.items():
                p.add_(here[name] * (self.rho / norm))
        with torch.enable_grad():
            for part in parts:
                assert part.again is not None
                tokens = {s: part.tokens[s] if s in part.tokens else part.again(s) for s in self.needs}
                self.forgets.add(self.method.loss(replace(part, tokens=tokens))["loss"])
        there = self.forgets.mean()
        with torch.no_grad():
            for name, p in self.forgets.weights.items():
                p.copy_(before[name])
                change = there[name] - here[name]
                p.grad = change if p.grad is None else p.grad + change


def constant(tokens: AnswerTokens) -> AnswerTokens:
    """The same answer tokens without gradient."""
    layers = {index: states.detach() for index, states in tokens.layers.items()}
    return replace(tokens, hidden=tokens.hidden.detach(), layers=layers)
