"""The gradient that an optimizer would see of a method that shapes gradients, and weights moved by hand."""

import torch

from support.preparing import prepare, trained
from viker_lightning.methods import Batch


def slopes(loss, mllm):
    return torch.autograd.grad(loss, list(trained(mllm).values()))


def weights(mllm):
    return [p.detach().clone() for p in trained(mllm).values()]


def restore(mllm, before):
    with torch.no_grad():
        for p, w in zip(trained(mllm).values(), before, strict=True):
            p.copy_(w)


def batch(mllm, **streams):
    """A step as a method sees it, or a part of one."""

    def answers(some):
        return mllm.answer_tokens(mllm.pack(some))

    return Batch({name: answers(some) for name, some in streams.items()}, again=lambda stream: answers(streams[stream]))


def step(method, mllm, *batches):
    """The gradient that an optimizer would see."""
    mllm.zero_grad()
    for one in batches:
        method.loss(one)["loss"].backward()
    method.before_optimizer_step(mllm)
    return [p.grad for p in trained(mllm).values()]


def ready(method, mllm):
    """The method as it is before the first step."""
    method.before_training(prepare(mllm, method))
    return method


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() < 1e-3 * other.norm()
