import math
from dataclasses import replace

import pytest
import torch

from support.plain_route import plain_ideal, plain_logits
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.ideal import (
    IdealDistribution,
    ImagePrefixes,
    forward_kl,
    key_token_example,
    key_token_report,
    key_tokens,
    mean_distribution,
    reduce_distribution,
    token_kl,
)
from viker_lightning.ideal.reference import statistics_of
from viker_lightning.methods import Batch, ViKeR
from viker_lightning.models import AnswerTokens


@pytest.fixture
def pictures():
    return irrelevant_images("scenes", 3, size=64)


def gradient(mllm, loss):
    mllm.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in mllm.parameters() if p.requires_grad])


@pytest.mark.parametrize("per", ["token", "question"])
def test_fast_route_equals_plain_route(mllm, groups, pictures, per):
    """Packed student, prefix key/values and projection against padded rows, full forwards and full distributions."""
    batch = mllm.pack(groups)
    ideal = IdealDistribution(mllm, pictures)
    method = ViKeR(lam=3.0, per=per)
    step = Batch({"forget": mllm.answer_tokens(batch)}, {("forget", "irrelevant"): ideal.reference(batch)})
    fast = method.loss(step)["loss"]
    fast_gradient = gradient(mllm, fast)

    logits, tokens = plain_logits(mllm, groups)
    p = plain_ideal(mllm, groups, pictures)
    ce = torch.nn.functional.cross_entropy(logits, tokens.labels, reduction="none")
    kl = (p * (p.log() - logits.log_softmax(-1))).sum(-1)
    plain = tokens.mean(-ce, per) + 3.0 * tokens.mean(kl, per)
    plain_gradient = gradient(mllm, plain)

    assert abs(fast.item() - plain.item()) / abs(plain.item()) < 1e-6
    assert (fast_gradient - plain_gradient).norm() / plain_gradient.norm() < 1e-5


def test_reverse_direction_equals_plain_route(mllm, groups, pictures):
    batch = mllm.pack(groups)
    ideal = IdealDistribution(mllm, pictures)
    step = rebuilt(mllm, batch, ideal.distribution(batch.encoded))
    fast = ViKeR(lam=1.0, direction="reverse", ascent="none").loss(step)["loss"]
    logits, _ = plain_logits(mllm, groups)
    p = plain_ideal(mllm, groups, pictures)
    log_q = logits.log_softmax(-1)
    plain = (log_q.exp() * (log_q - p.log())).sum(-1).mean()
    assert abs(fast.item() - plain.item()) / plain.item() < 1e-5
    difference = gradient(mllm, fast) - gradient(mllm, plain)
    assert (
        difference.norm()
        < 1e-5 * gradient(mllm, ViKeR(direction="reverse", ascent="none").loss(rebuilt(mllm, batch, p))["loss"]).norm()
    )


def rebuilt(mllm, batch, p):
    """As the engine has it: statistics of full distributions, and these."""
    asked = ("forget", "irrelevant")
    return Batch({"forget": mllm.answer_tokens(batch)}, {asked: statistics_of(p, batch.labels)}, {asked: p})


def test_reference_ignores_the_adapter_and_small_passes(mllm, groups, pictures):
    questions = mllm.pack(groups).encoded
    prefixes = ImagePrefixes(mllm, pictures)
    whole = torch.cat([x for _, x in prefixes.hidden(questions)], dim=1)
    prefixes.max_tokens = 30
    parts = torch.cat([x for _, x in prefixes.hidden(questions)], dim=1)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for name, weight in mllm.named_parameters():
            if "lora_B" in name:
                weight.mul_(3)
    again = torch.cat([x for _, x in prefixes.hidden(questions)], dim=1)
    torch.testing.assert_close(whole, again, rtol=1e-4, atol=1e-4)
    p = mean_distribution(mllm.head(states) for states in again)
    torch.testing.assert_close(p, plain_ideal(mllm, groups, pictures), rtol=1e-4, atol=1e-6)


def test_projection_gives_the_forward_kl():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False)
    hidden = torch.randn(6, 8, generator=generator, requires_grad=True)
    p = torch.randn(6, 50, generator=generator).mul(2).softmax(-1)
    labels = torch.arange(6)

    none = torch.zeros(6, dtype=torch.long)
    tokens = AnswerTokens(hidden, labels, none, none.bool(), 1, head)
    reference = reduce_distribution(p, labels, head.weight.detach())
    kl = forward_kl(reference, tokens)
    wanted = (p * (p.log() - tokens.logits.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(kl, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(token_kl(p, tokens.logits), wanted, rtol=1e-5, atol=1e-5)
    a = torch.autograd.grad(kl.sum(), hidden, retain_graph=True)[0]
    b = torch.autograd.grad(wanted.sum(), hidden)[0]
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_reduced_reference_keeps_entropy_and_label():
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    reference = reduce_distribution(p, torch.tensor([1, 0]), torch.eye(3))
    torch.testing.assert_close(reference.entropy, torch.tensor([math.log(2), 0.0]))
    torch.testing.assert_close(reference.log_prob, torch.tensor([math.log(0.5), 0.0]))
    torch.testing.assert_close(reference.vector, p)


def test_kl_to_itself_is_nothing():
    logits = torch.randn(4, 9)
    for direction in ("forward", "reverse"):
        assert token_kl(logits.softmax(-1), logits, direction).abs().max() < 1e-6


def test_store_asks_once(mllm, groups, pictures, monkeypatch):
    ideal = IdealDistribution(mllm, pictures)
    batch = mllm.pack(groups)
    first = ideal.reference(batch)
    monkeypatch.setattr(mllm, "run", lambda *_: pytest.fail("asked again"))
    again = ideal.reference(batch)
    torch.testing.assert_close(first.vector, again.vector)


def test_key_token_report(mllm, data, pictures):
    questions = [mllm.encoder.encode(q, image=True) for p in data.people(data.forget_ids) for q in p.vqa[:6]]
    ideal = IdealDistribution(mllm, pictures)
    ideal.prepare(questions)
    report = key_token_report(ideal, questions)
    assert report["tokens"] == sum(len(q.answer) for q in dict.fromkeys(questions))
    assert 0 <= report["auroc"] <= 1 and 0 <= report["auroc_first"] <= 1
    example = key_token_example(ideal, questions[0], top=3)
    assert [t["private"] for t in example] == list(questions[0].private)
    assert all(t["top"][0][1] >= t["top"][1][1] for t in example)


def test_key_tokens_against_plain_lines(mllm, data, pictures):
    """The report of all questions, and as the example the one with most private spans."""
    asked = [(vqa, True) for person in data.people(data.forget_ids) for vqa in person.vqa[:6]]
    ideal = IdealDistribution(mllm, pictures)
    questions = [mllm.encoder.encode(vqa, image=True) for vqa, _ in asked]
    ideal.prepare(questions)
    report, example = key_tokens(ideal, asked)
    entropy, private, first = [], [], []
    for question in dict.fromkeys(questions):
        full = ideal.distribution([question])
        entropy += [-(p * p.log()).sum().item() for p in full]
        private += question.private
        first += question.starts
    of = {flag: [h for h, one in zip(entropy, private, strict=True) if one == flag] for flag in (True, False)}
    starts = [h for h, one in zip(entropy, first, strict=True) if one]
    assert of[True] and of[False]

    def above(high):
        return sum((a > b) + (a == b) / 2 for a in high for b in of[False]) / len(high) / len(of[False])

    assert report == {
        "images": 3,
        "tokens": len(entropy),
        "private_tokens": len(of[True]),
        "auroc": pytest.approx(above(of[True]), abs=1e-3),
        "auroc_first": pytest.approx(above(starts), abs=1e-3),
        "entropy_private": pytest.approx(sum(of[True]) / len(of[True]), abs=1e-3),
        "entropy_template": pytest.approx(sum(of[False]) / len(of[False]), abs=1e-3),
    }
    most = max(len(vqa.private) for vqa, _ in asked)
    (chosen,) = {vqa for vqa, _ in asked if (vqa.question, vqa.answer) == (example["question"], example["answer"])}
    assert len(chosen.private) == most
    encoded = mllm.encoder.encode(chosen, image=True)
    full = ideal.distribution([encoded])
    eos = mllm.encoder.tokenizer.eos_token
    assert "".join(one["token"] for one in example["tokens"]) == f" {chosen.answer}{eos}"
    for p, one in zip(full, example["tokens"], strict=True):
        assert one["entropy"] == pytest.approx(-(p * p.log()).sum().item(), abs=1e-3)
        values, ids = p.topk(5)
        told = [
            [mllm.encoder.tokenizer.decode([i]), pytest.approx(v)] for i, v in zip(ids, values.tolist(), strict=True)
        ]
        assert one["top"] == told


def test_nothing_private_or_nothing_else_has_no_key_tokens(mllm, data, pictures):
    asked = data.people(data.forget_ids)[0].vqa[:2]
    ideal = IdealDistribution(mllm, pictures)
    for private in (False, True):
        encoded = [mllm.encoder.encode(vqa, image=True) for vqa in asked]
        questions = [replace(one, private=(private,) * len(one.answer)) for one in encoded]
        ideal.prepare(questions)
        report = key_token_report(ideal, questions)
        assert set(report) == {"images", "tokens", "private_tokens"}
        assert report["private_tokens"] == private * report["tokens"]


def test_no_image(mllm):
    with pytest.raises(ValueError, match="at least one irrelevant image"):
        ImagePrefixes(mllm, [])
