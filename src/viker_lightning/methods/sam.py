"""SAM: any method, whose forgetting is to hold in a whole neighbourhood of the weights."""

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Batch, Method
from .elsewhere import Elsewhere


class SAM(Elsewhere):
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
        self.rho = rho

    @override
    def move(self, parts: list[Batch], here: dict[str, Tensor]) -> bool:
        """Goes uphill by ``rho``, unless it is flat."""
        norm = torch.stack([slope.float().norm() for slope in here.values()]).norm()
        if not norm > 0:
            return False
        with torch.no_grad():
            for name, p in self.gradient.weights.items():
                p.add_(here[name] * (self.rho / norm))
        return True
