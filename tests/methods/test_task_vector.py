"""Task vectors: fine-tuning and negation in plain lines."""

import copy

import pytest
import torch

from support.preparing import ce, prepare, trained, whole_model
from viker_lightning.errors import UserError
from viker_lightning.methods import TaskVector


def weights(mllm):
    return {name: p.detach().clone() for name, p in trained(mllm).items()}


def plain(mllm, groups, lr, steps):
    """The weights after so many steps on the forget set; of an adapter only the second matrices move."""
    tuned = {name: p for name, p in trained(mllm).items() if "lora_A" not in name}
    optimizer = torch.optim.AdamW(tuned.values(), lr=lr, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        ce(mllm, groups).backward()
        optimizer.step()
    return weights(mllm)


@pytest.mark.parametrize("full", [False, True])
def test_the_edit(mllm, base_folder, groups, full):
    mllm = whole_model(base_folder) if full else mllm
    other, before = copy.deepcopy(mllm), weights(mllm)
    learned = plain(other, groups, 1e-3, 4)
    method = TaskVector(lr=1e-3, steps=4, scale=0.5)
    loss = ce(mllm, groups).item()
    method.before_training(prepare(mllm, method, forget=groups))
    for name, p in trained(mllm).items():
        if "lora_A" in name:
            assert torch.equal(p, before[name]), name
            continue
        moved = learned[name] - before[name]
        assert (p - (before[name] - 0.5 * moved)).norm() < 0.02 * moved.norm(), name
    assert ce(other, groups).item() < loss - 0.1 and ce(mllm, groups).item() > loss + 0.05
    assert mllm.moved == full and all(p.grad is None for p in mllm.parameters())


def test_small_changes_are_not_rounded_away(mllm, groups):
    """W10: in bf16 a weight and the same a little further are one number."""
    before = weights(mllm)
    method = TaskVector(lr=1e-6, steps=1)
    method.before_training(prepare(mllm, method, forget=groups))
    moved = {name: p.detach() - before[name] for name, p in trained(mllm).items() if "lora_B" in name}
    assert all((one != 0).float().mean() > 0.95 for one in moved.values())
    lost = [(before[n] + one).bfloat16() == before[n].bfloat16() for n, one in moved.items()]
    assert torch.cat([one.flatten() for one in lost]).float().mean() > 0.9


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"steps": 0}, {"scale": 0}])
def test_what_is_refused(wrong):
    with pytest.raises(UserError, match=r"TaskVector: lr=.* must be > 0"):
        TaskVector(**wrong)
