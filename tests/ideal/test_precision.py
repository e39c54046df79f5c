"""What the frozen model says and what the student says, in types that round: differences of the two stay exact."""

from contextlib import nullcontext

import pytest
import torch

from support.marks import bf16_attention
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.ideal import IdealDistribution, OwnReference, forward_kl, reference_of
from viker_lightning.methods import Batch, KLMinimization, ViKeR
from viker_lightning.models import AnswerTokens, logits

T, D, V = 12, 64, 500


@pytest.fixture(autouse=True)
def in_chunks(monkeypatch):
    """An output embedding takes several, the last one smaller."""
    monkeypatch.setattr(logits, "ROWS", 70)


def random_head(dtype):
    """Logits as large as those of language models: a bf16 number of that size is off by up to .03."""
    torch.manual_seed(0)
    head = torch.nn.Linear(D, V, bias=False)
    head.weight.data.normal_()
    return head.to(dtype).requires_grad_(False)


def tokens(head, hidden):
    none = torch.zeros(T, dtype=torch.long)
    return AnswerTokens(hidden, torch.arange(T), none, none.bool(), 1, head)


@pytest.mark.parametrize("kind", ["bf16-true", "16-true", "bf16-mixed"])
@pytest.mark.parametrize("moved", [0.0, 0.01])
def test_the_reduced_kl_is_exact(kind, moved):
    """Against double precision from the same hidden states: nothing, and no gradient, where both models agree."""
    dtype = torch.float16 if kind == "16-true" else torch.bfloat16
    head = random_head(torch.float32 if kind == "bf16-mixed" else dtype)
    generator = torch.Generator().manual_seed(1)
    frozen = torch.randn(T, D, generator=generator).to(dtype)
    hidden = (frozen.float() + moved * torch.randn(T, D, generator=generator)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if kind == "bf16-mixed" else nullcontext():
        reference = reference_of(tokens(head, frozen))
        kl = forward_kl(reference, tokens(head, hidden))
        assert kl.dtype == torch.float32
        (found,) = torch.autograd.grad(kl.sum(), hidden)

    weight, same = head.weight.double(), hidden.detach().double().requires_grad_()
    p = (frozen.double() @ weight.T).softmax(-1)
    wanted = (p * (p.log() - (same @ weight.T).log_softmax(-1))).sum(-1)
    (gradient,) = torch.autograd.grad(wanted.sum(), same)
    assert (kl - wanted).abs().max() < 2e-5
    assert (found - gradient).norm() < 1e-6 * reference.vector.norm() + 4e-3 * gradient.norm()  # 8 bits are stored
    if not moved:
        assert wanted.abs().max() < 1e-12 and found.norm() < 1e-6 * reference.vector.norm()


def low(mllm):
    """A model in bf16 whose adapter stays in fp32 and does nothing yet, as a run begins."""
    mllm.bfloat16()
    for name, p in mllm.named_parameters():
        if p.requires_grad:
            p.data = p.data.float() * ("lora_B" not in name)
    return mllm


def gradient(mllm, loss):
    mllm.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in mllm.parameters() if p.requires_grad])


@bf16_attention
def test_kl_minimisation_begins_without_a_gradient(mllm, groups):
    """The vanilla model is where it starts, so only ascent pulls."""
    low(mllm)
    batch = mllm.pack(groups)
    reference = OwnReference(mllm).reference(batch)
    nothing = AnswerTokens.none(mllm.head, (1.0, 1.0))
    step = Batch({"forget": nothing, "retain": mllm.answer_tokens(batch)}, {("retain", "own"): reference})
    out = KLMinimization(1.0).loss(step)
    pull = gradient(mllm, out["loss"])
    student = mllm.answer_tokens(batch)
    usual = gradient(mllm, student.mean(-student.log_probs))
    assert abs(out["retain_kl"]) < 1e-5
    assert pull.norm() < 1e-5 * usual.norm()


@bf16_attention
@pytest.mark.parametrize("ascent", ["full", "none"])
def test_viker_equals_the_plain_route(mllm, groups, ascent):
    """Reduced and in parts against fp32 softmaxes of the same hidden states."""
    batch, ideal = low(mllm).pack(groups), IdealDistribution(mllm, irrelevant_images("scenes", 3, size=64))
    student = mllm.answer_tokens(batch)
    student.hidden = student.hidden.detach().requires_grad_()
    step = Batch({"forget": student}, {("forget", "irrelevant"): ideal.reference(batch)})
    loss = ViKeR(lam=3.0, ascent=ascent).loss(step)["loss"]
    (found,) = torch.autograd.grad(loss, student.hidden)

    weight = mllm.head.weight.float()
    behind = torch.cat([states for _, states in ideal.prefixes.hidden(batch.encoded)], dim=1)
    p = (behind.float() @ weight.T).softmax(-1).mean(0)
    hidden = student.hidden.detach().float().requires_grad_()
    log_q = (hidden @ weight.T).log_softmax(-1)
    plain = 3.0 * (p * (p.log() - log_q)).sum(-1).mean()
    if ascent == "full":
        plain = plain + log_q.gather(-1, batch.labels[:, None]).mean()
    (wanted,) = torch.autograd.grad(plain, hidden)
    assert student.hidden.dtype == torch.bfloat16
    assert abs(loss.item() - plain.item()) < 1e-5 * abs(plain.item())
    assert (found - wanted).norm() < 4e-3 * wanted.norm()  # it is stored in 8 bits


def test_an_output_embedding_that_is_trained_is_asked_as_it_is():
    head = random_head(torch.bfloat16).requires_grad_(True)
    hidden = torch.randn(T, D).bfloat16().requires_grad_()
    found = tokens(head, hidden).logits
    assert torch.equal(found, head(hidden).float())
    found.sum().backward()
    assert head.weight.grad is not None and hidden.grad is not None
