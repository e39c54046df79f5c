"""Hidden states of the frozen model: remembered, cut and stored beside its words."""

from dataclasses import replace

import pytest
import torch

from viker_lightning.ideal import OwnReference, Reference, ReferenceStore, reference_of
from viker_lightning.ideal.reference import NAMES

LAYERS = (1, -1)


@pytest.fixture
def frozen(mllm, groups):
    """What the frozen model says of a batch, and its hidden states."""
    with mllm.frozen():
        tokens = mllm.answer_tokens(mllm.pack(groups), LAYERS)
        return tokens.layers, reference_of(tokens, layers=LAYERS)


def refuse(*_):
    pytest.fail("asked the frozen model again")


def assert_equal(one, other):
    for name in NAMES:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_reference_holds_the_layers_in_their_order(mllm, groups, frozen):
    layers, reference = frozen
    t, d = layers[1].shape
    assert reference.layers.shape == (t, 2, d) and reference.layers.dtype == torch.float32
    for i, index in enumerate(LAYERS):
        assert torch.equal(reference.layers[:, i], layers[index].float())
    with mllm.frozen():
        short = reference_of(mllm.answer_tokens(mllm.pack(groups), LAYERS), reduced=False, layers=LAYERS)
    torch.testing.assert_close(short.layers, reference.layers)
    assert short.vector.shape == (t, 0)


def test_cut_joined_and_counted(mllm, frozen):
    _, reference = frozen
    t, n, d = reference.layers.shape
    parts = reference.split([2, t - 5, 3])
    assert [part.layers.shape for part in parts] == [(2, n, d), (t - 5, n, d), (3, n, d)]
    assert_equal(Reference.cat(parts), reference)
    assert_equal(reference.to("cpu"), reference)
    assert reference.nbytes == 4 * t * (d + 1 + 1 + n * d)
    nothing = Reference.none(mllm.head.weight, LAYERS)
    assert nothing.layers.shape == (0, n, d)
    assert_equal(Reference.cat([nothing, reference]), reference)


def test_without_layers_it_is_what_it_was(mllm, groups):
    batch = mllm.pack(groups)
    reference = OwnReference(mllm).reference(batch)
    t = len(batch.labels)
    assert reference.layers.shape == (t, 0, 0)
    assert reference.nbytes == 4 * t * (reference.vector.shape[1] + 2)
    made = Reference(reference.vector, reference.entropy, reference.log_prob)
    assert_equal(Reference.cat([made, Reference.none(mllm.head.weight), reference]).split([t, t])[1], reference)


def test_layers_are_remembered_like_words(mllm, groups, frozen, monkeypatch):
    batch, own = mllm.pack(groups), OwnReference(mllm, layers=LAYERS)
    assert_equal(own.reference(batch), frozen[1])
    monkeypatch.setattr(mllm, "answer_tokens", refuse)
    sizes = [sum(len(q.answer) for q in mllm.pack([group]).encoded) for group in groups]
    again = own.reference(mllm.pack(groups[::-1]))
    assert torch.equal(again.layers, torch.cat(frozen[1].layers.split(sizes)[::-1]))
    resumed = OwnReference(mllm, layers=LAYERS)
    resumed.load_state_dict(own.state_dict())
    assert_equal(resumed.reference(batch), frozen[1])


def test_a_checkpoint_without_layers_is_taken_up(mllm, groups, monkeypatch):
    """As they were written before there were any."""
    batch, own = mllm.pack(groups), OwnReference(mllm)
    wanted, state = own.reference(batch), own.state_dict()
    monkeypatch.setattr(mllm, "answer_tokens", refuse)
    resumed = OwnReference(mllm)
    resumed.load_state_dict({name: value for name, value in state.items() if name != "layers"})
    assert_equal(resumed.reference(batch), wanted)


@pytest.mark.parametrize("layers", [(), (1,), (-1, 1)])
def test_other_layers_are_asked_for_anew(mllm, groups, tmp_path, layers):
    """One store serves all of them, and what it has without hidden states stays of use."""
    batch, store = mllm.pack(groups), ReferenceStore(tmp_path)
    OwnReference(mllm, store=store, layers=LAYERS).reference(batch)
    found = OwnReference(mllm, store=store, layers=layers).reference(batch)
    with mllm.frozen():
        wanted = reference_of(mllm.answer_tokens(batch, layers), layers=layers)
    assert_equal(found, wanted)
    again = ReferenceStore(tmp_path)
    for asked in (LAYERS, layers):
        assert OwnReference(mllm, store=again, layers=asked).reference(batch).layers.shape[1] == len(asked)


def test_layers_on_disk_are_read_again(mllm, groups, frozen, tmp_path, monkeypatch):
    own = OwnReference(mllm, store=ReferenceStore(tmp_path), layers=LAYERS)
    own.prepare([replace(groups[0], vqa=groups[0].vqa[:1]), *groups[1:]])
    own.reference(mllm.pack(groups))
    monkeypatch.setattr(mllm, "answer_tokens", refuse)
    found = OwnReference(mllm, store=ReferenceStore(tmp_path), layers=LAYERS).reference(mllm.pack(groups))
    for name in NAMES:
        torch.testing.assert_close(getattr(found, name), getattr(frozen[1], name))
