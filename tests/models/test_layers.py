"""Hidden states of decoder layers: transformers' own, on every route, and a gradient that stops where they are read."""

from dataclasses import replace

import pytest
import torch

from support.families import FAMILIES, random_model
from support.marks import quick
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, AnswerTokens, Lora, check_first_gradients, decoder_layers

QUESTIONS = (
    VQA("Where does this person live?", "In Tarn Hollow."),
    VQA("What is it that they do every day of the week?", "They help."),
    VQA("Who?", "An assistant of a system, as far as it is known."),
)


@pytest.fixture
def tiny_groups():
    pictures = [*irrelevant_images("scenes", 1, size=84), *irrelevant_images("people", 1, size=112)]
    return [ImageGroup(str(i), picture, vqa=QUESTIONS[i:]) for i, picture in enumerate(pictures)]


def transformers_own(model, batch):
    """``output_hidden_states`` of every question by itself, at its answer positions: ``[L + 1]`` times ``[T, d]``.

    The first is what goes into the first layer, and the last has passed the final norm.
    """
    found = []
    for question, row in zip(batch.encoded, batch.row_of, strict=True):
        ids = torch.tensor([[*batch.prefixes[row], *question.prompt, *question.own[:-1]]])
        image = batch.pictures[row].open()
        more = model.family.plain_inputs(model.base, model.processor, [image], ids)
        asked = {"attention_mask": torch.ones_like(ids), "use_cache": False, "output_hidden_states": True}
        states = model.base(input_ids=ids, **asked, **more).hidden_states
        found.append([state[0, -len(question.own) :] for state in states])
    return [torch.cat(states) for states in zip(*found, strict=True)]


def hooks_of(model):
    """How many there are on each layer; transformers leaves one of its own there."""
    return [len(layer._forward_hooks) for layer in decoder_layers(model.language_model)]


@pytest.mark.parametrize("name", quick([*FAMILIES, "windowed"], ["llava", "windowed"]))
def test_values_are_transformers_own_on_both_routes(name, tiny_groups):
    model = random_model(name)
    batch, n = model.pack(tiny_groups), len(decoder_layers(model.language_model))
    assert n >= 2
    with torch.no_grad():
        wanted = transformers_own(model, batch)
    assert len(wanted) == n + 1
    hooks = hooks_of(model)
    for packs in {model.packs, False}:
        model.packs = packs
        with torch.no_grad():
            tokens = model.answer_tokens(batch, (0, -n, n - 1, -1))
            assert hooks_of(model) == hooks and list(tokens.layers) == [0, -n, n - 1, -1]
            for index in (0, -n):
                torch.testing.assert_close(tokens.layers[index], wanted[1], rtol=1e-4, atol=1e-4)
            for index in (n - 1, -1):
                normed = model.language_model.norm(tokens.layers[index])
                torch.testing.assert_close(normed, wanted[n], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(tokens.hidden, wanted[n], rtol=1e-4, atol=1e-4)
            assert (tokens.layers[0] - tokens.layers[-1]).abs().max() > 1e-3


def test_nothing_is_noted_unasked(mllm, groups):
    tokens = mllm.answer_tokens(mllm.pack(groups))
    assert tokens.layers == {}
    nothing = AnswerTokens.none(mllm.head, (1.0, 1.0), (0, -1))
    assert {index: h.shape for index, h in nothing.layers.items()} == dict.fromkeys(
        (0, -1), (0, tokens.hidden.shape[1])
    )
    assert AnswerTokens.none(mllm.head, (1.0, 1.0)).layers == {}


@pytest.mark.parametrize("index", [3, -4, 99])
def test_a_layer_that_does_not_exist(mllm, groups, index):
    said = rf"^layer {index}: there is none; the language model has 3 decoder layers, name one of 0 to 2 \(.*\)$"
    for packs in (True, False):
        mllm.packs = packs
        with pytest.raises(UserError, match=said):
            mllm.answer_tokens(mllm.pack(groups), (0, index))
    assert hooks_of(mllm) == [0, 0, 0]


def test_a_layer_may_give_a_tuple(mllm, groups, monkeypatch):
    batch = mllm.pack(groups)
    wanted = mllm.answer_tokens(batch, (1,)).layers[1]
    first, second = decoder_layers(mllm.language_model)[1:]
    forward, following = first.forward, second.forward
    monkeypatch.setattr(first, "forward", lambda *args, **options: (forward(*args, **options), None))
    monkeypatch.setattr(second, "forward", lambda states, *args, **options: following(states[0], *args, **options))
    assert torch.equal(mllm.answer_tokens(batch, (1,)).layers[1], wanted)


@pytest.mark.parametrize("packs", [True, False])
def test_without_its_adapter_it_is_the_model_before(mllm, base_folder, groups, packs):
    mllm.packs, batch = packs, mllm.pack(groups)
    student = mllm.answer_tokens(batch, (0, 2)).layers
    with mllm.frozen():
        frozen = mllm.answer_tokens(batch, (0, 2)).layers
    with torch.no_grad():
        for name, p in mllm.named_parameters():
            if "lora_B" in name:
                p.zero_()
        zero = mllm.answer_tokens(batch, (0, 2)).layers
    for index in (0, 2):
        assert student[index].requires_grad and not frozen[index].requires_grad
        torch.testing.assert_close(frozen[index], zero[index])
        assert (student[index] - frozen[index]).abs().max() > 1e-3


def gradients(model, batch, layers):
    model.zero_grad(set_to_none=True)
    tokens = model.answer_tokens(batch, layers)
    sum(h.float().square().sum(-1).mean() for h in tokens.layers.values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("deepest", [0, 1, -2, 2])
def test_the_gradient_stops_at_the_layer(mllm, groups, deepest):
    found = gradients(mllm, mllm.pack(groups), (0, deepest))
    reached = {int(name.split(".layers.")[1].split(".")[0]) for name in found}
    assert reached == set(range(deepest % 3 + 1)) and all(g.abs().max() > 0 for g in found.values())
    mllm.packs = False
    for name, g in gradients(mllm, mllm.pack(groups), (0, deepest)).items():
        torch.testing.assert_close(g, found.pop(name), rtol=1e-3, atol=1e-5)
    assert not found


@pytest.mark.parametrize("packs", [True, False])
def test_computing_layers_again_changes_nothing(mllm, groups, packs):
    mllm.train()
    mllm.packs, batch = packs, mllm.pack(groups)
    wanted = gradients(mllm, batch, (0, 1))
    mllm.checkpoint_gradients()
    passes = []
    layer = decoder_layers(mllm.language_model)[1]
    handle = layer.mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    tokens = mllm.answer_tokens(batch, (0, 1))
    before, noted = len(passes), dict(tokens.layers)
    mllm.zero_grad()
    sum(h.float().square().sum(-1).mean() for h in tokens.layers.values()).backward()
    handle.remove()
    assert len(passes) == 2 * before, "it was computed again"
    assert all(tokens.layers[index] is h for index, h in noted.items())
    found = {name: p.grad for name, p in mllm.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, g in wanted.items():
        torch.testing.assert_close(found[name], g)


def test_the_first_gradient_may_stop_at_a_layer(base_folder, groups):
    model = MLLM.load(base_folder)
    model.adapt(Lora(r=2))
    gradients(model, model.pack(groups), (1,))
    for deepest in (1, -2):
        assert check_first_gradients(model, deepest=deepest)
    with pytest.raises(UserError, match=r"no gradient reaches 7 of 21 adapters, e.g. model.language_model.layers.2"):
        check_first_gradients(model)
    with pytest.raises(UserError, match=r"no gradient reaches 7 of 21 adapters"):
        check_first_gradients(model, deepest=2)
    with pytest.raises(UserError, match=r"^first step: a gradient reaches model.language_model.layers.1.*layer 0; "):
        check_first_gradients(model, deepest=0)
    with pytest.raises(UserError, match=r"^layer 3: there is none"):
        check_first_gradients(model, deepest=3)
    name, missed = next((n, p) for n, p in model.named_parameters() if ".layers.0." in n and "lora_B" in n)
    missed.grad = None
    layer = name.split("base_model.model.")[1].split(".lora_B")[0]
    with pytest.raises(UserError, match=rf"no gradient reaches 1 of 14 adapters, e.g. {layer};"):
        check_first_gradients(model, deepest=1)


@pytest.mark.parametrize("tied", [True, False])
def test_norm_and_head_are_not_judged_behind_hidden_states(base_folder, groups, tied):
    model = MLLM.load(base_folder)
    if not tied:
        model.base.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.head.weight))
    model.train_fully()
    found = gradients(model, model.pack(groups), (1,))
    assert ("model.lm_head.weight" in found) is False and not any(
        name.endswith("language_model.norm.weight") for name in found
    )
    assert check_first_gradients(model, deepest=1)
    above, _ = model.above(1)
    head = [p for p in above if p is model.head.weight]
    assert len(head) == (not tied), "a tied one is the input embedding, which is reached"
    if not tied:
        model.base.get_input_embeddings().weight.grad = None
        with pytest.raises(UserError, match=r"no gradient reaches 1 of .* e.g. .*embed_tokens"):
            check_first_gradients(model, deepest=1)


def test_text_questions_have_hidden_states_too(mllm, groups):
    mixed = [groups[0], replace(groups[1], image=None)]
    whole = mllm.answer_tokens(mllm.pack(mixed), (1,)).layers[1]
    apart = torch.cat([mllm.answer_tokens(mllm.pack([group]), (1,)).layers[1] for group in mixed])
    torch.testing.assert_close(whole, apart, rtol=1e-4, atol=1e-4)
