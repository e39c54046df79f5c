"""How many numbers a trained weight a method holds, counted while it works."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from support.preparing import prepare, trained
from viker_lightning.methods import (
    GRU,
    SAM,
    AgainstRelearning,
    Batch,
    GradientDifference,
    MMUnlearner,
    TaskVector,
)


class Live(TorchDispatchMode):
    """Numbers that are there at once, at most, in tensors that are made within and as large as a weight."""

    def __init__(self, weights):
        super().__init__()
        self.sizes, self.holders = {p.numel() for p in weights}, {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.numel() in self.sizes:
                place, size = tensor.untyped_storage().data_ptr(), tensor.numel()
                self.now += 0 if place in self.holders else size
                self.peak = max(self.peak, self.now)
                self.holders[place] = (self.holders.get(place, (0, size))[0] + 1, size)
                weakref.finalize(tensor, self.gone, place)
        return made

    def gone(self, place):
        number, size = self.holders.pop(place)
        if number > 1:
            self.holders[place] = (number - 1, size)
        else:
            self.now -= size


def most(method, mllm, streams):
    """Copies of all that is trained that are there at once, gradients among them, in two steps without an optimizer."""
    weights = list(trained(mllm).values())
    with Live(weights) as live:
        method.before_training(prepare(mllm, method, **streams))
        for _ in range(2 * method.takes_steps):
            mllm.zero_grad()
            packed = {name: mllm.pack(groups) for name, groups in streams.items()}
            tokens = {name: mllm.answer_tokens(batch) for name, batch in packed.items()}
            batch = Batch(tokens, again=lambda stream, packed=packed: mllm.answer_tokens(packed[stream]))
            method.loss(batch)["loss"].backward()
            method.before_optimizer_step(mllm)
    mllm.zero_grad()
    return live.peak / sum(p.numel() for p in weights)


@pytest.mark.parametrize("around", [GRU, SAM, AgainstRelearning])
def test_of_methods_around_others(around, mllm, groups):
    streams = {"forget": groups[:1], "retain": groups[1:]}
    inside, whole = GradientDifference(2.0), around(GradientDifference(2.0))
    beside = most(whole, mllm, streams) - most(inside, mllm, streams)
    assert inside.copies == 0 and whole.copies - 0.5 < beside < whole.copies + 0.5


@pytest.mark.parametrize(("method", "counted"), [(MMUnlearner(), 3), (TaskVector(steps=2), 0)])
def test_before_the_first_step(method, counted, mllm, groups):
    """Then there is no gradient and no optimizer, for which a run that takes steps has three already."""
    streams = {"forget": groups[:1], "retain": groups[1:]}
    found = most(method, mllm, {name: streams[name] for name in method.streams})
    assert method.copies - 0.7 < found - counted < method.copies + 0.5
