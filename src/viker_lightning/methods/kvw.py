"""KVW: neurons that say more of the forget set than of the retain set are weakened."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.models.layers import layer_number

from .base import Forget, Method, Preparation, Retain
from .neurons import READ, added, down_projections


class KVW(Method):
    """KVW (arXiv 2601.21794) weakens the values of neurons that say more of the forget set than of the retain set.

    `W_v[:, n] <- W_v[:, n] * exp(-gamma * max(0, ln k_f(n) - ln k_r(n))), rounds times; k(n) = mean_t |z_n|`

    z_n is what neuron n of an MLP of the language model says, W_v is ``down_proj``, whose column n is what the neuron
    adds, and means are over answer tokens, at the positions that predict them. k_f is measured anew in every round, k_r
    once, before. No step follows, and the weights themselves change, so that ``model.lora`` must be null.

    Followed: kyj93790/KVW CLEAR/baselines/KVW.py L190-300 (f91a4dc).

    Differs: there every batch of 4 forget questions is a round, in 5 epochs with gamma 0.02, so that the edit depends
    on batch size and order; here a round is the whole forget set, and gamma correspondingly larger. There whatever goes
    wrong in a round is passed over in silence (``except Exception: pass``), and in an earlier version (6b5e51d), whose
    gates were unpacked into two names, every round went wrong: the model that was saved had not been edited at all.

    Args:
        gamma: how fast neurons are weakened.
        rounds: how many edits there are.
        first_layer: decoder layer from which on they are weakened, from 0, or from the end if negative.
        last_layer: the last one.
    """

    needs = (Forget(), Retain())
    layers = READ
    answers_only = True
    takes_steps = False

    def __init__(self, gamma: float = 1.0, rounds: int = 5, first_layer: int = 1, last_layer: int = 25) -> None:
        if gamma <= 0 or rounds < 1:
            raise UserError(f"KVW: gamma={gamma} must be > 0, rounds={rounds} >= 1")
        self.gamma, self.rounds, self.first_layer, self.last_layer = gamma, rounds, first_layer, last_layer

    @override
    def before_training(self, run: Preparation) -> None:
        matrices = down_projections(run, "KVW")
        first, last = (layer_number(matrices, index) for index in (self.first_layer, self.last_layer))
        if first > last:
            raise UserError(f"KVW: first_layer={self.first_layer} is behind last_layer={self.last_layer}; swap them")
        kept = said(run, matrices, "retain", "KVW: retain")
        for number in range(1, self.rounds + 1):
            forgotten = said(run, matrices, "forget", f"KVW: round {number} of {self.rounds}")
            with torch.no_grad():
                for layer in range(first, last + 1):
                    weight = matrices[layer].weight
                    weight.mul_(gates(forgotten[layer], kept[layer], self.gamma).to(weight.dtype))
        run.mllm.mark_trained()


def said(run: Preparation, matrices: list[nn.Linear], stream: str, title: str) -> list[Tensor]:
    """By layer the ``[n]`` mean of absolute activations over the answer tokens of a stream."""
    found = added(run, matrices, stream, title, lambda z: torch.stack([z.abs().sum(0), torch.ones_like(z).sum(0)]))
    return [total / number for total, number in found]


def gates(forgotten: Tensor, kept: Tensor, gamma: float) -> Tensor:
    """What is left of neurons' values, 0 to 1, from their ``[n]`` mean absolute activations on both sets."""
    more = (forgotten + 1e-12).log() - (kept + 1e-12).log()
    return torch.exp(-gamma * more.clamp(min=0))
