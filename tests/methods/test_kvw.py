"""KVW: the edit in plain lines, and that nothing which goes wrong is passed over."""

import pytest
import torch

from support.preparing import of_each_question, prepare, whole_model
from viker_lightning.errors import UserError
from viker_lightning.methods import KVW
from viker_lightning.models import decoder_layers


@pytest.fixture
def mllm(base_folder):
    return whole_model(base_folder)


def matrices(mllm):
    return [layer.mlp.down_proj.weight.detach().clone() for layer in decoder_layers(mllm.language_model)]


def plain(mllm, forget, retain, gamma, rounds, layers):
    """The edit, question by question and neuron by neuron."""
    kept = [z.abs().mean(0) for z in of_each_question(mllm, retain)]
    for _ in range(rounds):
        forgotten = [z.abs().mean(0) for z in of_each_question(mllm, forget)]
        for n in layers:
            delta = torch.clamp(forgotten[n].log() - kept[n].log(), min=0)
            with torch.no_grad():
                decoder_layers(mllm.language_model)[n].mlp.down_proj.weight *= torch.exp(-gamma * delta)[None, :]


@pytest.mark.parametrize(("first", "last", "layers"), [(0, -1, (0, 1, 2)), (1, 1, (1,))])
def test_the_edit(base_folder, mllm, groups, first, last, layers):
    forget, retain = groups[:1], groups[1:]
    other, before = whole_model(base_folder), matrices(mllm)
    plain(other, forget, retain, 0.7, 2, layers)
    method = KVW(gamma=0.7, rounds=2, first_layer=first, last_layer=last)
    method.before_training(prepare(mllm, method, forget=forget, retain=retain))
    for n, (found, wanted) in enumerate(zip(matrices(mllm), matrices(other), strict=True)):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
        changed = (found != before[n]).any(0)
        assert changed.any() == (n in layers) and not changed.all(), "neurons that say less are left as they are"
    assert mllm.moved, "it is not the original model any more"


def test_an_edit_that_fails_is_no_edit(mllm, groups, monkeypatch):
    """W6: there an exception is passed over, and a model is saved as if it had been edited."""

    def broken(*_):
        raise RuntimeError("no such luck")

    method = KVW(first_layer=0, last_layer=2)
    monkeypatch.setattr("viker_lightning.methods.kvw.gates", broken)
    with pytest.raises(RuntimeError, match="no such luck"):
        method.before_training(prepare(mllm, method, forget=groups[:1], retain=groups[1:]))


def test_what_is_refused(mllm, groups):
    for wrong in ({"gamma": 0}, {"rounds": 0}):
        with pytest.raises(UserError, match=r"KVW: gamma=.* must be > 0"):
            KVW(**wrong)
    for layers, message in (((2, 1), "is behind last_layer=1"), ((0, 25), "layer 25: there is none")):
        method = KVW(first_layer=layers[0], last_layer=layers[1])
        with pytest.raises(UserError, match=message):
            method.before_training(prepare(mllm, method, forget=groups, retain=groups))
