"""Sampled answers: drawn from the model's own probabilities, the same however much passes the model at a time."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from support.families import random_model
from support.plain_route import plain_logits
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.models import Sampling, generate, sample, sampled_answers
from viker_lightning.models.generation import answer_text
from viker_lightning.models.sampled_answers import draw

QUESTIONS = ("Where does this person live?", "Who?", "What is it that they do every day?")


@pytest.fixture
def asked():
    pictures = irrelevant_images("scenes", 2, size=56)
    vqa = tuple(VQA(q, "a") for q in QUESTIONS)
    return [
        ImageGroup("a", pictures[0], vqa=vqa),
        ImageGroup("b", None, vqa=vqa[1:2]),
        ImageGroup("c", pictures[1], vqa=(vqa[0], vqa[0], vqa[2])),  # one question twice, side by side
    ]


def made(name, **more):
    """A random model that says nothing of images, which :func:`plainly` could not read, and other tokens more often.

    Args:
        name: of its family.
        **more: what is added to the logits of tokens of which a name is part.
    """
    model = random_model(name)
    assert model.packs == (name not in ("gemma3", "windowed"))  # found out before anything is added
    silent = {"image": -1e4, "video": -1e4, "vision": -1e4}
    added = torch.zeros(len(model.head.weight))
    for token, i in model.encoder.tokenizer.get_vocab().items():
        added[i] = sum(value for part, value in (silent | more).items() if part in token)
    model.head.register_forward_hook(lambda head, given, logits: logits + added)
    return model


def plainly(model, groups, sampling):
    """One answer at a time, the whole sequence read again for every token, with the same numbers."""
    found = []
    for group in groups:
        for vqa in group.vqa:
            numbers = sampling.numbers(group, vqa.question)
            found.append([one(model, replace(group, vqa=(vqa,)), row, sampling) for row in numbers])
    return found


def one(model, group, numbers, sampling):
    prompt = [
        *model.prefix(group.image),
        *model.encoder.question(group.vqa[0].question, group.image is not None).prompt,
    ]
    said = []
    images = [group.image.open()] if group.image else []
    for uniform in numbers:
        ids = torch.tensor([prompt + said])
        more = model.family.plain_inputs(model.base, model.processor, images, ids) if images else {}
        with torch.no_grad():
            logits = model.base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits[
                0, -1
            ]
        p = (logits / sampling.temperature).softmax(-1).double()
        if sampling.top_p < 1:
            kept, total = set(), 0.0
            for token in p.argsort(descending=True, stable=True).tolist():
                if total >= sampling.top_p:
                    break
                kept.add(token)
                total += p[token].item()
            p = torch.tensor([x if i in kept else 0.0 for i, x in enumerate(p.tolist())], dtype=torch.float64)
        below, token = 0.0, -1
        while below <= uniform * p.sum():
            token += 1
            below += p[token].item()
        said.append(token)
        if token in model.stops:
            break
    return answer_text(model, said)


SHARP = (0.7, 0.8)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "temperature", "top_p"),
    [
        ("llava", 1.0, 1.0),
        ("llava", *SHARP),
        ("qwen2_vl", *SHARP),
        ("qwen3_vl", 1.0, 1.0),
        ("gemma3", *SHARP),
        ("windowed", 1.0, 1.0),
    ],
)
def test_samples_are_those_drawn_one_by_one(asked, name, temperature, top_p):
    """On the packed route, and where questions do not share their image (the last two)."""
    model = made(name)
    sampling = Sampling(3, 5, temperature, top_p, seed=3)
    groups = asked if model.packs else [asked[0], asked[1]]
    found = sample(model, groups, sampling)
    assert [[len(q) for q in g] for g in found] == [[3] * len(g.vqa) for g in groups]
    flat = [q for g in found for q in g]
    assert flat == plainly(model, groups, sampling)
    assert len({text for q in flat for text in q}) > 8
    if model.packs:
        assert found[2][0] == found[2][1]  # the same question has the same numbers, and an answer sees no other answer


def test_budgets_neighbours_and_number_change_nothing(asked, monkeypatch):
    model = random_model("llava")
    sampling = Sampling(7, 8, seed=1)
    wanted = sample(model, asked, sampling)
    assert [sample(model, [g], sampling)[0] for g in reversed(asked)] == wanted[::-1]
    assert sample(model, asked, replace(sampling, seed=2)) != wanted
    rooms, key_values = [], type(model).key_values
    monkeypatch.setattr(type(model), "key_values", lambda self, room: rooms.append(room) or key_values(self, room))
    for budgets in ((120, 240), (4096, 300), (1, 1)):
        rooms.clear()
        model.set_budgets(*budgets)
        assert sample(model, asked, sampling) == wanted
        assert len(rooms) > 1
        if budgets[0] > 1:
            assert max(rooms) <= min(budgets)


def test_images_and_prompts_are_read_once(asked, monkeypatch):
    model = random_model("llava")
    assert model.packs
    model.set_budgets(200, 400)
    read, decoded = [], []
    hidden, decode = type(model).hidden, sampled_answers.decode
    monkeypatch.setattr(type(model), "hidden", lambda *a: read.append(a[1].n_questions) or hidden(*a))
    monkeypatch.setattr(sampled_answers, "decode", lambda *a: decoded.append(len(a[3])) or decode(*a))
    sample(model, asked, Sampling(20, 8))
    assert sum(read) == 7 and sum(decoded) == 20 * 7
    assert len(decoded) > len(read)


def test_the_first_token_has_the_models_probabilities(asked):
    """Pearson's chi-square at n = 4000 over the likelier tokens and the rest; the bound is its 99.9 % quantile."""
    model = random_model("llava")
    group = replace(asked[0], vqa=asked[0].vqa[:1])
    n = 4000
    (((*texts,),),) = sample(model, [group], Sampling(n, 1))
    p = plain_logits(model, [replace(group, vqa=(VQA(QUESTIONS[0], ""),))])[0][0].softmax(-1)
    expected = Counter()
    for token, share in enumerate(p.tolist()):
        expected[answer_text(model, [token])] += n * share
    found, likely = Counter(texts), [t for t, e in expected.items() if e >= 10]
    cells = [(found[t], expected[t]) for t in likely]
    rest = n - sum(e for _, e in cells)
    cells += [(n - sum(o for o, _ in cells), rest)] if rest >= 10 else []
    assert len(cells) > 5
    statistic, free = sum((o - e) ** 2 / e for o, e in cells), len(cells) - 1
    quantile = free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3  # Wilson and Hilferty
    assert statistic < quantile


def test_draws_by_hand():
    logits = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2]).log().expand(8, -1)
    uniform = torch.tensor([0.0, 0.09, 0.11, 0.49, 0.51, 0.79, 0.81, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, uniform).tolist() == [0, 0, 1, 1, 3, 3, 4, 4]
    # the likeliest that together have .6 are 1 and 3, drawn from in the ratio of 4 to 3
    assert draw(logits, uniform, top_p=0.6).tolist() == [1, 1, 1, 1, 1, 3, 3, 3]
    assert draw(logits, uniform, top_p=0.01).tolist() == [1] * 8
    # at temperature .5 shares are squared: 1, 16, 0, 9, 4 of 30
    assert draw(logits, uniform, temperature=0.5).tolist() == [0, 1, 1, 1, 1, 3, 3, 4]


def test_an_answer_ends_at_end_of_sequence(asked, monkeypatch):
    """Whatever its neighbours do: many tokens are the end here."""
    model = made("llava", **{"</s>": 3.0})
    eos = model.encoder.eos
    said = []
    monkeypatch.setattr(sampled_answers, "answer_text", lambda m, ids: said.append(ids) or answer_text(m, ids))
    sampling = Sampling(6, 8, seed=5)
    found = [q for g in sample(model, asked, sampling) for q in g]
    assert found == plainly(model, asked, sampling)
    ends = [ids.index(eos) for ids in said if eos in ids]
    assert 10 < len(ends) < len(said) and len(set(ends)) > 4
    assert all(set(ids[ids.index(eos) :]) == {eos} for ids in said if eos in ids)


def test_cold_samples_are_greedy_answers(asked):
    model = random_model("qwen2_vl")
    cold = sample(model, asked, Sampling(2, 6, temperature=1e-4))
    assert cold == [[[text] * 2 for text in row] for row in generate(model, asked, 6)]
