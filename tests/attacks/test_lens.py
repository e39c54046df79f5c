"""Ranks and probabilities of private tokens at each layer, against the model itself and plain matrix products."""

import pytest
import torch

from viker_lightning.attacks import Subject, gather
from viker_lightning.attacks.kinds.lens import Lens, final_norm, look
from viker_lightning.models import decoder_layers


def test_the_last_layer_is_the_model_itself(mllm, groups):
    mllm.eval()
    seen = list(look(mllm, groups))
    with torch.no_grad():
        tokens = mllm.answer_tokens(mllm.pack(groups))
    assert len(seen) == tokens.n_questions
    for number, (ranks, probabilities) in enumerate(seen):
        mine = (tokens.question == number) & tokens.private
        torch.testing.assert_close(probabilities[-1], tokens.log_probs[mine].exp())
        likelier = tokens.logits[mine] > tokens.logits[mine].gather(1, tokens.labels[mine, None])
        assert ranks[-1].tolist() == likelier.sum(1).tolist()


def test_an_earlier_layer_is_read_through_the_final_norm_and_the_output_layer(mllm, groups):
    mllm.eval()
    ranks, probabilities = next(look(mllm, groups))
    with torch.no_grad():
        tokens = mllm.answer_tokens(mllm.pack(groups), [0])
        mine = (tokens.question == 0) & tokens.private
        states = tokens.layers[0][mine]
        normed = states * (states.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        normed = normed * dict(mllm.language_model.named_parameters())["norm.weight"]
        p = (normed @ mllm.head.weight.T).softmax(-1)
    own = p.gather(1, tokens.labels[mine, None])
    torch.testing.assert_close(probabilities[0], own[:, 0], rtol=1e-4, atol=1e-7)
    assert ranks[0].tolist() == (p > own).sum(1).tolist()
    assert ranks.shape == (len(decoder_layers(mllm.language_model)), int(mine.sum()))


def test_a_model_without_a_norm_behind_its_layers_is_read_as_it_is():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_tokens, self.layers = torch.nn.Embedding(3, 2), torch.nn.ModuleList([torch.nn.Linear(2, 2)])

    assert isinstance(final_norm(Plain()), torch.nn.Identity)


def test_hits_are_shares_of_private_tokens_within_the_first_k(data, base_folder, tmp_path, monkeypatch):
    material = gather(data, people=1)
    ranks = torch.tensor([[0, 7], [3, 9], [20, 4]])
    asked = sum(len(g.vqa) for g in material.asked)
    read = (ranks, torch.tensor([[0.5, 0.1], [0.2, 0.2], [0.0, 0.4]]))
    nothing = (torch.zeros(3, 0), torch.zeros(3, 0))
    monkeypatch.setattr(
        "viker_lightning.attacks.kinds.lens.look", lambda mllm, groups: iter([read] * (asked - 1) + [nothing])
    )
    found = Lens().carry_out("layers", Subject("run", str(base_folder), tmp_path), material)
    person = next(one.person for one in found)
    mine = [one for one in found if one.person == person and one.question == material.asked[0].vqa[0].question]

    def hits(series):
        return {one.x: one.hit for one in mine if one.series == series}

    assert hits("within the first 1") == {1: 0.5, 2: 0.0, 3: 0.0}
    assert hits("within the first 5") == {1: 0.5, 2: 0.5, 3: 0.5}
    assert hits("within the first 10") == {1: 1.0, 2: 1.0, 3: 0.5}
    assert hits("within the first 5 of any layer") == {None: 1.0}  # one token at layers 1 and 2, the other at layer 3
    chance = [one.probability for one in mine if one.series == "within the first 1"]
    assert chance == pytest.approx([0.3, 0.2, 0.2])
    assert len([one for one in found if one.series == "within the first 1"]) == 3 * (asked - 1)  # no token, no share
    assert len([one for one in found if one.series == "as asked"]) == asked


def test_it_is_carried_out_on_both(data, base_folder, tmp_path):
    attack, material = Lens.quick(), gather(data, people=1)
    found = attack.carry_out(*attack.parts(), Subject("run", str(base_folder), tmp_path), material)
    layers = {one.x for one in found if one.series == "within the first 10"}
    assert layers == {1, 2, 3}
    for series in dict.fromkeys(one.series for one in found):
        assert {one.whose for one in found if one.series == series} == {"forget", "retain"}
        assert all(0 <= one.hit <= 1 for one in found)
