"""AgainstRelearning: relearning and what is forgotten after it in plain lines, and weights that come back."""

import pytest
import torch

from support.preparing import ce, trained
from support.shaped import assert_close, batch, ready, restore, slopes, step, weights
from viker_lightning.errors import UserError
from viker_lightning.methods import GRU, KVW, NPO, RMU, SAM, AgainstRelearning, GradientAscent, GradientDifference
from viker_lightning.methods.base import Alternative

RHO, STEPS = 0.02, 3


def taught(mllm, *parts):
    """Weights after a few steps of signs on the forget answers, in plain lines."""
    for _ in range(STEPS):
        found = slopes(sum(ce(mllm, part) for part in parts), mllm)
        with torch.no_grad():
            for p, g in zip(trained(mllm).values(), found, strict=True):
                p -= RHO / STEPS * g.sign()


def made(inner, mllm, share=0.5):
    return ready(AgainstRelearning(inner, RHO, STEPS, share), mllm)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_is_forgotten_after_relearning(mllm, groups, share):
    forget, retain = groups[:1], groups[1:]
    found = step(made(GradientDifference(2.0), mllm, share), mllm, batch(mllm, forget=forget, retain=retain))
    kept, here, before = slopes(2 * ce(mllm, retain), mllm), slopes(-ce(mllm, forget), mllm), weights(mllm)
    known = ce(mllm, forget).item()
    taught(mllm, forget)
    assert ce(mllm, forget).item() < known, "it was taught"
    there = slopes(-ce(mllm, forget), mllm)
    restore(mllm, before)
    wanted = [(1 - share) * h + share * t + r for h, t, r in zip(here, there, kept, strict=True)]
    assert_close(found, wanted)
    assert max(float((t - h).norm() / h.norm()) for t, h in zip(there, here, strict=True)) > 0.05, "it matters"


def test_weights_come_back_exactly(mllm, groups):
    before = weights(mllm)
    method = made(GradientAscent(), mllm)
    step(method, mllm, batch(mllm, forget=groups))
    assert all(torch.equal(p, w) for p, w in zip(trained(mllm).values(), before, strict=True))
    assert method._parts == [], "nothing is left for the next step"


def test_weights_come_back_from_a_pass_that_fails(mllm, groups):
    """Out of memory, say, or interrupted; the next run with the same method begins without what was left."""
    before, method, one = weights(mllm), made(GradientAscent(), mllm), batch(mllm, forget=groups)
    passes, allowed = one.again, iter(range(STEPS))
    one.again = lambda stream: passes(stream) if next(allowed, None) is not None else pytest.fail("out of memory")
    with pytest.raises(pytest.fail.Exception, match="out of memory"):
        step(method, mllm, one)
    assert all(torch.equal(p, w) for p, w in zip(trained(mllm).values(), before, strict=True))
    method.loss(batch(mllm, forget=groups))
    ready(method, mllm)
    assert method._parts == []


def test_what_nothing_reaches_has_no_gradient(mllm, groups):
    """As without it: a weight with a gradient of 0 would decay."""
    inside = GradientAscent()
    inside.layers, inside.reads_answers = (0,), False
    inside.loss = lambda one: {"loss": one.hidden("forget", 0).square().mean()}
    mllm.zero_grad(set_to_none=True)
    method = made(inside, mllm)
    said = batch(mllm, forget=groups)
    tokens = {"forget": mllm.answer_tokens(mllm.pack(groups), (0,))}
    said.tokens, said.again = tokens, lambda stream: mllm.answer_tokens(mllm.pack(groups), (0,))
    method.move = lambda parts, here: True
    found = dict(zip(trained(mllm), step(method, mllm, said), strict=True))
    reached = {name for name, slope in found.items() if slope is not None}
    assert reached and all("layers.0." in name for name in reached) and len(reached) < len(found)


def test_all_parts_of_a_step_count(mllm, groups):
    parts = [[group] for group in groups]
    found = step(made(GradientAscent(), mllm, 1.0), mllm, *(batch(mllm, forget=part) for part in parts))
    before = weights(mllm)
    taught(mllm, *parts)
    there = slopes(-sum(ce(mllm, part) for part in parts), mllm)
    restore(mllm, before)
    assert_close(found, there)


def test_what_is_refused():
    for inner in (KVW(), GRU(NPO()), SAM(NPO()), AgainstRelearning(NPO())):
        with pytest.raises(UserError, match=f"AgainstRelearning: {type(inner).__name__} cannot be inside"):
            AgainstRelearning(inner)
    for wrong in ({"rho": 0}, {"steps": 0}, {"share": 0}, {"share": 1.5}):
        with pytest.raises(UserError, match=f"AgainstRelearning: .*{next(iter(wrong))}="):
            AgainstRelearning(NPO(), **wrong)
    alone = type("Alternative", (GradientAscent,), {"needs": (Alternative(("No.",)),)})()
    with pytest.raises(UserError, match="reads no forget answers"):
        AgainstRelearning(alone)
    assert AgainstRelearning(RMU()).layers == (7,)
