"""MANU: neurons that matter more for the forget set than for the retain set are pruned."""

import torch
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Forget, Method, Preparation, Retain
from .neurons import READ, added, down_projections

SPOKEN = 0.1
"""From which absolute value on a neuron counts as active (MIP-Editor manu.py L17, Open-MMUnlearning manu.py)."""


class MANU(Method):
    """MANU (Liu et al. 2025, arXiv 2502.15910) prunes neurons that matter more for the forget than the retain set.

    `S_n = I_f(n) / (I_r(n) + 1e-6); I(n) = mean |z_n| + mean 1[|z_n| > 0.1] + std z_n + sqrt(mean z_n^2)`

    z_n is what neuron n of an MLP of the language model says (the n-th input of ``down_proj``), statistics are over the
    answer tokens of a stream, at the positions that predict them. The neurons with the highest S of all layers together
    are cut off: their column of ``down_proj`` becomes 0. No step follows, and the weights themselves change, so that
    ``model.lora`` must be null.

    Followed: JunkaiChen1/Open-MMunlearning src/trainer/unlearn/manu.py L26-143 (60def72) and PreckLi/MIP-Editor manu.py
    L11-135 (ab54ebb), since the authors have published no code that could be read.

    Differs: the paper compares what neurons say with and without the image. Open-MMUnlearning leaves that out, and so
    does this; MIP-Editor has it, with a denominator that is no absolute value (L95) and the state at the last position
    alone, which is padding in all but the longest sequence of a batch (L22). Open-MMUnlearning's statistics are over
    padding and image, too, and are means over batches of what a batch says, so that a standard deviation depends on
    the batch size (L118-143); here they are those of all tokens. It takes the last three layers and cuts rows of
    ``gate_proj``, ``up_proj`` and ``down_proj``, of which the last are no neurons, and MIP-Editor scales by 0.9 what it
    calls pruned; here all layers are ranked together, and neurons are gone.

    Args:
        percent: share of all neurons that are pruned, above 0 and below 100 percent.
    """

    needs = (Forget(), Retain())
    layers = READ
    answers_only = True
    takes_steps = False

    def __init__(self, percent: float = 10.0) -> None:
        if not 0 < percent < 100:
            raise UserError(f"MANU: percent={percent} must be above 0 and below 100")
        self.percent = percent

    @override
    def before_training(self, run: Preparation) -> None:
        matrices = down_projections(run, "MANU")
        forget, retain = (
            [importance(one) for one in added(run, matrices, stream, f"MANU: {stream}", sums)]
            for stream in ("forget", "retain")
        )
        scores = [f / (r + 1e-6) for f, r in zip(forget, retain, strict=True)]
        with torch.no_grad():
            for matrix, chosen in zip(matrices, highest(scores, self.percent), strict=True):
                matrix.weight[:, chosen] = 0
        run.mllm.mark_trained()


def sums(z: Tensor) -> Tensor:
    """``[5, n]`` sums of absolute values of ``[T, n]`` activations, active tokens, values and squares, and T."""
    return torch.stack(
        [one.sum(0) for one in (z.abs(), (z.abs() > SPOKEN).double(), z, z.square(), torch.ones_like(z))]
    )


def importance(summed: Tensor) -> Tensor:
    """How much neurons say, ``[n]``, from :func:`sums`."""
    size, active, mean, square = summed[:4] / summed[4]
    return size + active + (square - mean.square()).clamp(min=0).sqrt() + square.sqrt()


def highest(scores: list[Tensor], percent: float) -> list[Tensor]:
    """Which neurons have the highest scores of all layers together, as masks; one at least."""
    together = torch.cat(scores)
    number = max(1, int(percent / 100 * len(together)))
    chosen = torch.zeros_like(together, dtype=torch.bool)
    chosen[together.topk(number).indices] = True
    return list(chosen.split([len(one) for one in scores]))
