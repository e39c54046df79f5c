"""GRU: running mean and projection in plain lines."""

import pytest
import torch

from support.preparing import ce, prepare, trained
from viker_lightning.errors import UserError
from viker_lightning.methods import GRU, NPO, RMU, Batch, Forget, GradientAscent, GradientDifference, Retain
from viker_lightning.methods.gru import conflict


def flat(values):
    return torch.cat([one.flatten() for one in values])


def slope(loss, mllm):
    return flat(torch.autograd.grad(loss, list(trained(mllm).values())))


def step(method, mllm, forget, retain):
    """The gradient that an optimizer would see."""
    mllm.zero_grad()
    tokens = {name: mllm.answer_tokens(mllm.pack(some)) for name, some in (("forget", forget), ("retain", retain))}
    terms = method.loss(Batch(tokens))
    terms["loss"].backward()
    method.before_optimizer_step(mllm)
    return flat([p.grad for p in trained(mllm).values()]), terms


def made(method, mllm, **settings):
    gru = GRU(method, **settings)
    gru.before_training(prepare(mllm, gru))
    return gru


def test_conflict():
    g, m = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([1.0])}, {"a": torch.tensor([1.0, 2.0])}
    m["b"], m["c"] = torch.tensor([0.0]), torch.tensor([9.0])
    assert conflict(g, m) == pytest.approx(-3 / 5)
    assert conflict({"a": -g["a"]}, m) == 0 and conflict(g, {"a": torch.zeros(2), "b": torch.zeros(1)}) == 0


def test_what_works_against_the_retain_set_is_taken_away(mllm, groups):
    forget, retain = groups[:1], groups[1:]
    g, m = slope(-ce(mllm, forget), mllm), 0.8 * slope(ce(mllm, retain), mllm)
    assert g @ m < 0, "ascent on one person works against the others"
    found, terms = step(made(GradientAscent(), mllm), mllm, forget, retain)
    torch.testing.assert_close(found, g - (g @ m) / (m @ m) * m, rtol=1e-3, atol=1e-6)
    assert abs(float(found @ m)) < 1e-4 * float(found.norm() * m.norm())
    assert terms["retain_ce"].item() == pytest.approx(ce(mllm, retain).item(), rel=1e-4)


def test_a_gradient_that_does_not_conflict_is_left_alone(mllm, groups):
    class Descent(GradientAscent):
        def loss(self, batch):
            return {"loss": -super().loss(batch)["loss"]}

    found, _ = step(made(Descent(), mllm), mllm, groups[:1], groups[:1])
    torch.testing.assert_close(found, slope(ce(mllm, groups[:1]), mllm), rtol=1e-3, atol=1e-7)


def test_the_running_mean(mllm, groups):
    first, second = (slope(ce(mllm, groups[n : n + 1]), mllm) for n in (1, 2))
    method = made(GradientAscent(), mllm, smoothing=0.7)
    for n in (1, 2):
        step(method, mllm, groups[:1], groups[n : n + 1])
    wanted = 0.7 * second + 0.3 * 0.7 * first
    torch.testing.assert_close(flat(method.smoothed.values()), wanted, rtol=1e-3, atol=1e-6)
    again = made(GradientAscent(), mllm, smoothing=0.7)
    again.load_state_dict(method.state_dict())
    assert torch.equal(step(again, mllm, groups[:1], groups[1:])[0], step(method, mllm, groups[:1], groups[1:])[0])


def test_the_retain_term_of_the_method_inside_stays(mllm, groups):
    """W5: there it is in the loss that is reported, and in no gradient."""
    forget, retain = groups[:1], groups[1:]
    g = slope(2 * ce(mllm, retain) - ce(mllm, forget), mllm)
    m = slope(ce(mllm, retain), mllm)
    found, _ = step(made(GradientDifference(2.0), mllm), mllm, forget, retain)
    torch.testing.assert_close(found, g - min(0, g @ m) / (m @ m) * m, rtol=1e-3, atol=1e-6)


def test_what_is_asked_besides():
    assert GRU(NPO()).needs == (Forget(own="log_prob"), Retain())
    assert GRU(RMU()).needs == RMU.needs and GRU(RMU()).layers == (7,)


def test_what_is_refused():
    passes = type("Passes", (GradientDifference,), {"in_passes": True})()
    edits = type("Edits", (GradientAscent,), {"takes_steps": False})()
    for inner, reason in ((passes, r"take turns \(in_passes\)"), (edits, "takes no steps")):
        with pytest.raises(UserError, match=f"GRU: {type(inner).__name__} cannot be inside, for .*{reason}"):
            GRU(inner)
    with pytest.raises(UserError, match="GRU: smoothing=0 must be above 0"):
        GRU(NPO(), smoothing=0)
