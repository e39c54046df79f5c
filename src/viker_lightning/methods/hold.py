"""Holding the student where the person is not: on portraits of strangers it says what it said before."""

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError, check_least

from .around import Around
from .base import Batch, Method, Strangers

RATE = 0.05
"""How fast the weight of a hold follows its bound: e^.05 a step at most. With .2 it overshoots."""


class Hold:
    """``weight * mean_t KL(p0(. | S, x, y_<t) || p(. | S, x, y_<t))`` on strangers S, p0 being the frozen model.

    With a bound the weight is a dual one: after every step it is multiplied by ``exp(RATE * (KL / bound - 1))``, the
    bracket being at most 1. It rises while the KL is above its bound and falls while it is below.

    Args:
        weight: of the KL; with a bound, that of the first step.
        bound: the KL that is aimed at, nats a token; ``None`` keeps the weight as it is.
    """

    def __init__(self, weight: float, bound: float | None = None) -> None:
        if weight <= 0 or (bound is not None and bound <= 0):
            raise UserError(f"hold={weight} and bound={bound} must be > 0; without a bound set it to null")
        self.weight, self.bound = weight, bound

    def add(self, batch: Batch, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms of a loss with the hold added.

        Returns:
            With them ``hold_kl``, the KL, nats, to be low, and ``hold_weight``, 0 in a step that shows no stranger.
        """
        strangers = batch.strangers
        kl = strangers.mean(batch.kl("strangers", "own"))
        weight = strangers.token_share(torch.full_like(strangers.log_probs, self.weight))
        return {**terms, "loss": terms["loss"] + self.weight * kl, "hold_kl": kl, "hold_weight": weight}

    def update(self, terms: dict[str, Tensor]) -> None:
        """Moves a dual weight, given the terms of a step."""
        if self.bound is not None and terms["hold_weight"] > 0 and terms["hold_kl"].isfinite():
            kl = max(terms["hold_kl"].item(), 0.0)  # of two models that are the same it is 0 but for rounding
            self.weight *= math.exp(RATE * min(kl / self.bound - 1, 1))

    def state_dict(self) -> dict[str, Any]:
        """The weight, if it moves."""
        return {} if self.bound is None else {"hold": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the weight of a run that was stopped."""
        self.weight = state.get("hold", self.weight)


class Held(Around):
    """Held (ours): any method, held on portraits of strangers to what the frozen model says there.

    ``L = L_method + hold * mean_t KL(p0(. | S, x, y_<t) || p(. | S, x, y_<t))``, S being a stranger.

    It needs no data of anybody: the strangers are drawn, or in a folder, and are asked what a step asks about the
    forget set, with the forget answers read behind them. It is to spare people whom no loss protects; it does not keep
    all of them (docs/results.md).

    Args:
        method: the method that is held.
        hold: weight of the KL; with ``bound`` that of the first step.
        bound: KL on strangers, nats a token, that the weight is moved to keep to; ``None`` leaves it as it is.
        strangers: ``people`` (drawn) or a folder of portraits.
        stranger_count: how many.
        rehearsal: whether they are asked for the frozen model's own answers in place of the forget answers; those with
            a private span of the forget set are left out.
    """

    def __init__(
        self,
        method: Method,
        hold: float = 30.0,
        bound: float | None = None,
        strangers: str = "people",
        stranger_count: int = 20,
        rehearsal: bool = False,
    ) -> None:
        super().__init__(method)
        reasons = {"it has strangers already": "strangers" in method.streams}
        self.check_inside(reasons | {"its loss is no sum over parts (whole_steps)": method.whole_steps})
        check_least("Held", 1, stranger_count=stranger_count)
        self.hold, self.bound, self.rehearsal = hold, bound, rehearsal
        self.held = Hold(hold, bound)
        self.strangers, self.stranger_count = strangers, stranger_count
        self.needs = (*method.needs, Strangers(strangers, stranger_count, rehearsal=rehearsal, own="kl"))
        self.reads_answers = True

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Means over answer tokens, nats."""
        return self.held.add(batch, self.method.loss(batch))

    @override
    def after_step(self, terms: dict[str, Tensor]) -> None:
        self.method.after_step(terms)
        self.held.update(terms)

    @override
    def state_dict(self) -> dict[str, Any]:
        own, inner = self.held.state_dict(), self.method.state_dict()
        return {"own": own, "method": inner} if own or inner else {}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held.load_state_dict(state["own"])
        if state["method"]:
            self.method.load_state_dict(state["method"])
