"""Any method, whose forgetting is to hold after somebody has begun to teach the people again. Ours."""

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Method
from .elsewhere import Elsewhere, again


class AgainstRelearning(Elsewhere):
    """AgainstRelearning (ours): any method, with its forget gradient taken where relearning has led as well.

    `w_0 = w, w_{i+1} = w_i - (rho / steps) * sign(grad CE_forget(w_i))`

    `g = (1 - share) * grad_f L(w) + share * grad_f L(w_steps) + grad_r L(w)`

    L is the loss of the method inside; grad_f is its gradient through what it reads of forget questions (``forget`` and
    ``alternative``), grad_r through what it reads of anything else. In every step the forget answers are first
    relearned, in a few steps of the size that AdamW takes (it moves a weight by about its learning rate), and what
    comes back there is forgotten, too. The weights are put back before the optimizer steps. A step passes forget
    questions ``steps + 1`` times more. docs/results.md says what it does to relearning.

    The idea is that of TAR (Tamirisa et al. 2024, arXiv 2408.00761): the gradient of a safeguard at the weights that an
    attacker reaches, without the derivative of the way there. Differs: TAR samples attacks with AdamW on a corpus, and
    adds its gradient to that of a retain loss on text and hidden states; here the attack is on the step's own
    questions, and forgetting and holding are those of the method inside.

    Args:
        method: the method inside.
        rho: how far a weight is moved at most.
        steps: of relearning.
        share: of the forget gradient that is taken after relearning, 0 to 1.
    """

    def __init__(self, method: Method, rho: float = 0.01, steps: int = 2, share: float = 0.5) -> None:
        super().__init__(method, share)
        if rho <= 0 or steps < 1:
            raise UserError(f"AgainstRelearning: rho={rho} must be > 0, steps={steps} at least 1")
        self.check_inside({"it reads no forget answers": "forget" not in method.streams})
        self.rho, self.steps = rho, steps
        self.copies += 1  # the gradient that teaches

    @override
    def move(self, parts: list[Batch], here: dict[str, Tensor]) -> bool:
        for _ in range(self.steps):
            for part in parts:
                self._teach(part)
            slopes = self.gradient.mean()
            with torch.no_grad():
                for name, p in self.gradient.weights.items():
                    p.sub_(slopes[name].sign() * (self.rho / self.steps))
        return True

    def _teach(self, part: Batch) -> None:
        """Adds the gradient of the cross-entropy of a part's answers; its graph is gone afterwards."""
        forget = again(part, "forget")
        self.gradient.add(forget.mean(-forget.log_probs))
