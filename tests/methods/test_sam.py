"""SAM: the perturbed gradient in plain lines, weights that come back, and what a step may ask again."""

import pytest
import torch

from support.preparing import ce, trained
from support.shaped import assert_close, batch, ready, slopes, step, weights
from viker_lightning.errors import UserError
from viker_lightning.ideal import reference_of
from viker_lightning.methods import GRU, KVW, NPO, RMU, SAM, GradientAscent, GradientDifference, MMUnlearner, ViKeR

RHO = 0.3


def perturbed(mllm, found):
    """Moves the weights uphill by ``RHO``, in plain lines."""
    norm = torch.cat([g.flatten() for g in found]).norm()
    with torch.no_grad():
        for p, g in zip(trained(mllm).values(), found, strict=True):
            p += RHO * g / norm


def made(inner, mllm, rho=RHO):
    return ready(SAM(inner, rho), mllm)


def test_forget_at_the_perturbed_weights_and_retain_at_the_weights(mllm, groups):
    forget, retain = groups[:1], groups[1:]
    found = step(made(GradientDifference(2.0), mllm), mllm, batch(mllm, forget=forget, retain=retain))
    kept, here = slopes(2 * ce(mllm, retain), mllm), slopes(-ce(mllm, forget), mllm)
    perturbed(mllm, here)
    there = slopes(-ce(mllm, forget), mllm)
    assert_close(found, [f + r for f, r in zip(there, kept, strict=True)])
    assert max(float((f - h).norm() / h.norm()) for f, h in zip(there, here, strict=True)) > 0.05, "it matters"


def test_weights_come_back_exactly(mllm, groups):
    """W12: there they are moved back by a subtraction, which bf16 does not undo."""
    before = weights(mllm)
    step(made(GradientAscent(), mllm), mllm, batch(mllm, forget=groups))
    assert all(torch.equal(p, w) for p, w in zip(trained(mllm).values(), before, strict=True))
    w, e = torch.tensor(1.0).bfloat16(), torch.tensor(0.003).bfloat16()
    assert (w + e) - e != w


def test_all_parts_of_a_step_count(mllm, groups):
    """W11: there gradients are cleared in every pass, so that the last alone counts."""
    method, parts = made(GradientAscent(), mllm), [[group] for group in groups]
    found = step(method, mllm, *(batch(mllm, forget=part) for part in parts))
    here = slopes(-sum(ce(mllm, part) for part in parts), mllm)
    perturbed(mllm, here)
    assert_close(found, slopes(-sum(ce(mllm, part) for part in parts), mllm))
    assert method._parts == [], "nothing is left for the next step"


def test_a_loss_with_a_reference(mllm, groups):
    """W13: NPO reads the answers; what the frozen model says of them stays where it was."""
    with mllm.frozen():
        frozen = mllm.answer_tokens(mllm.pack(groups))
        reference = reference_of(frozen)
    one = batch(mllm, forget=groups)
    one.references = {("forget", "own"): reference}
    found = step(made(NPO(0.5), mllm), mllm, one)

    def plain():
        tokens = mllm.answer_tokens(mllm.pack(groups))
        ratio = tokens.sum_by_question(tokens.log_probs - frozen.log_probs)
        return -2 / 0.5 * torch.nn.functional.logsigmoid(-0.5 * ratio).mean()

    perturbed(mllm, slopes(plain(), mllm))
    assert_close(found, slopes(plain(), mllm))


def test_a_loss_that_reads_no_forget_answers_keeps_its_gradient(mllm, groups):
    """ViKeR with nothing but its retain term, as in an ablation: there is nowhere to go uphill."""
    inside = ViKeR(lam=0, ascent="none", retain_weight=2.0)
    found = step(made(inside, mllm), mllm, batch(mllm, forget=groups[:1], retain=groups[1:]))
    assert_close(found, slopes(2 * ce(mllm, groups[1:]), mllm))


def test_what_is_refused():
    passes = type("Passes", (GradientDifference,), {"in_passes": True})()
    reasons = {"take turns": [passes], "no steps": [KVW()], "shapes gradients": [GRU(NPO()), MMUnlearner(), SAM(NPO())]}
    for reason, inner in [(reason, one) for reason, some in reasons.items() for one in some]:
        with pytest.raises(UserError, match=f"SAM: {type(inner).__name__} cannot be inside, for .*{reason}"):
            SAM(inner)
    with pytest.raises(UserError, match="SAM: rho=0 must be > 0"):
        SAM(NPO(), 0)
    assert SAM(RMU()).layers == (7,) and SAM(NPO()).needs == NPO().needs
