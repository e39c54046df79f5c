"""What is trained and only images reach: with several processes, some of a step may show none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viker_lightning.models import MLLM

from .engine import Groups


def projector(mllm: MLLM) -> list[nn.Parameter]:
    """What is trained besides the language model and its output embedding."""
    language = {id(p) for module in (mllm.language_model, mllm.head) for p in module.parameters()}
    return [p for p in mllm.parameters() if p.requires_grad and id(p) not in language]


def shows_images(groups: Groups) -> bool:
    """Whether a step, or a part of one, has an image."""
    return any(group.image is not None for found in groups.values() for group in found)


def reached(mllm: MLLM) -> Tensor:
    """Zero, whose backward pass reaches the projector with a gradient of zeros: DDP waits for one of every weight."""
    nothing = [p.reshape(-1)[:0].float().sum() for p in projector(mllm)]  # whatever the weights are, even nan
    return torch.stack(nothing).sum() if nothing else torch.zeros((), device=mllm.device)


def leave_alone(mllm: MLLM) -> None:
    """Has the optimizer skip the projector, as on one process, in a step in which no process shows an image."""
    for p in projector(mllm):
        p.grad = None
