"""Any method, with the gradient of its forgetting taken at other weights than those it moves."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.models import AnswerTokens

from .around import Around, nested
from .base import Batch, Method, Preparation
from .gradients import Gradient, add_to_gradient

FORGETS = ("forget", "alternative")
"""Streams whose gradient is taken at the other weights; that of the others is taken where the weights are."""


class Elsewhere(Around):
    """Does what another method does, with a share of its forget gradient taken at weights that :meth:`move` finds.

    `g = (1 - share) * grad_f L(w) + share * grad_f L(w') + grad_r L(w)`

    L is the loss of the method inside, w' are the weights that :meth:`move` leaves; grad_f is the gradient through what
    it reads of forget questions (``forget`` and ``alternative``), grad_r through what it reads of anything else. The
    weights are put back before the optimizer steps. ``copies`` of all that is trained are held meanwhile, and what
    references say of a step is held until its end.

    Args:
        method: the method inside.
        share: of the forget gradient that is taken at w', 0 to 1.
    """

    def __init__(self, method: Method, share: float = 1.0) -> None:
        super().__init__(method)
        self.check_inside({"it shapes gradients itself": any(one.shapes_gradients for one in nested(method))})
        if not 0 < share <= 1:
            raise UserError(f"{type(self).__name__}: share={share} must be > 0 and at most 1")
        self.share, self.shapes_gradients = share, True
        self.copies = method.copies + 4  # weights before, the forget gradient here and there, and one on its way
        self.gradient: Gradient
        self._parts: list[Batch] = []

    def move(self, parts: list[Batch], here: dict[str, Tensor]) -> bool:
        """Moves the weights, in place, and says whether it has; a subclass says where, here they stay.

        Args:
            parts: of the step; forget questions are passed again by their ``again``.
            here: the forget gradient at the weights as they are, by name.
        """
        return False

    @override
    def before_training(self, run: Preparation) -> None:
        self.method.before_training(run)
        self.gradient, self._parts = Gradient(run, type(self).__name__), []

    @override
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """That of the method inside, whose gradient through the forget questions is noted."""
        terms = self.method.loss(batch)
        read = [h for s in FORGETS if s in batch.tokens for h in (batch[s].hidden, *batch[s].layers.values())]
        read = [h for h in read if h.requires_grad]
        if read and terms["loss"].requires_grad:
            slopes = torch.autograd.grad(terms["loss"], read, retain_graph=True, allow_unused=True)
            through = [(h * slope).sum() for h, slope in zip(read, slopes, strict=True) if slope is not None]
            if through:  # a loss need not read what it declares, e.g. where a term has no weight
                self.gradient.add(torch.stack([one.float() for one in through]).sum())
        rest = {stream: constant(tokens) for stream, tokens in batch.tokens.items() if stream not in FORGETS}
        self._parts.append(replace(batch, tokens=rest))
        return terms

    @override
    def before_optimizer_step(self, model: nn.Module) -> None:
        """Puts the gradient at the other weights in the place of its share of that at the weights."""
        self.method.before_optimizer_step(model)
        parts, self._parts = self._parts, []
        here, weights = self.gradient.mean(), self.gradient.weights
        before = {name: p.detach().clone() for name, p in weights.items()}
        try:
            with torch.enable_grad():
                if not self.move(parts, here):
                    return
                while parts:
                    self._pass(parts.pop(0))
        finally:  # a pass may run out of memory, or be interrupted
            with torch.no_grad():
                for name, p in weights.items():
                    p.copy_(before[name])
        there = self.gradient.mean()
        for name, p in weights.items():
            add_to_gradient(p, self.share * (there[name] - here[name]))

    def _pass(self, part: Batch) -> None:
        """Adds the forget gradient of a part at the weights as they are; its graph is gone afterwards."""
        tokens = {s: part.tokens[s] if s in part.tokens else again(part, s) for s in self.streams}
        self.gradient.add(self.method.loss(replace(part, tokens=tokens))["loss"])


def again(part: Batch, stream: str) -> AnswerTokens:
    """Answer tokens of a part, passed again with the weights as they are."""
    assert part.again is not None
    return part.again(stream)


def constant(tokens: AnswerTokens) -> AnswerTokens:
    """The same answer tokens without gradient."""
    layers = {index: states.detach() for index, states in tokens.layers.items()}
    return replace(tokens, hidden=tokens.hidden.detach(), layers=layers)
