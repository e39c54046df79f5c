"""MANU: importance and pruning in plain lines."""

import pytest
import torch

from support.preparing import of_each_question, prepare, whole_model
from viker_lightning.errors import UserError
from viker_lightning.methods import MANU
from viker_lightning.methods.manu import highest, importance, sums
from viker_lightning.models import decoder_layers


@pytest.fixture
def mllm(base_folder):
    return whole_model(base_folder)


def plain(z):
    """How much each neuron says, from ``[T, n]`` activations."""
    return z.abs().mean(0) + (z.abs() > 0.1).float().mean(0) + z.std(0, correction=0) + (z**2).mean(0).sqrt()


def test_importance():
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double() * 0.2
    torch.testing.assert_close(importance(sums(z)), plain(z).double(), rtol=1e-6, atol=1e-6)


def test_parts_add_up():
    """W9: there a standard deviation is that of a batch, and their mean is taken."""
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double()
    z[4:] += 3
    torch.testing.assert_close(importance(sums(z[:4]) + sums(z[4:])), importance(sums(z)))
    of_batches = (z[:4].std(0, correction=0) + z[4:].std(0, correction=0)) / 2
    assert (of_batches < 0.7 * z.std(0, correction=0)).all()


def test_the_highest_of_all_layers_together():
    found = highest([torch.tensor([1.0, 9.0, 2.0]), torch.tensor([8.0, 7.0]), torch.tensor([0.0])], 50)
    assert [one.tolist() for one in found] == [[False, True, False], [True, True], [False]]
    assert sum(int(one.sum()) for one in highest([torch.arange(6.0)], 1)) == 1, "one at least"


def test_the_edit(mllm, groups):
    forget, retain = groups[:1], groups[1:]
    scores = [
        plain(f) / (plain(r) + 1e-6)
        for f, r in zip(of_each_question(mllm, forget), of_each_question(mllm, retain), strict=True)
    ]
    bound = torch.cat(scores).sort(descending=True).values[int(0.05 * 1200) - 1]
    layers = [layer.mlp.down_proj for layer in decoder_layers(mllm.language_model)]
    before = [one.weight.detach().clone() for one in layers]
    method = MANU(percent=5.0)
    method.before_training(prepare(mllm, method, forget=forget, retain=retain))
    for one, weight, score in zip(layers, before, scores, strict=True):
        pruned = (one.weight == 0).all(0)
        assert (pruned == (score >= bound)).float().mean() > 0.995, "but for rounding at the bound"
        assert torch.equal(one.weight[:, ~pruned], weight[:, ~pruned])
    assert sum(int((one.weight == 0).all(0).sum()) for one in layers) == int(0.05 * 1200) and mllm.moved


@pytest.mark.parametrize("percent", [0, 100])
def test_what_is_refused(percent):
    with pytest.raises(UserError, match=f"MANU: percent={percent} must be above 0 and below 100"):
        MANU(percent)
