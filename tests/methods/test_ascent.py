"""ViKeR's three kinds of ascent: loss and gradient in plain lines, and where each of them ends."""

import logging

import pytest
import torch

from viker_lightning.errors import UserError
from viker_lightning.ideal import reduce_distribution
from viker_lightning.methods import Batch, Forget, Irrelevant, ViKeR
from viker_lightning.models import AnswerTokens

QUESTION = torch.tensor([0, 0, 0, 1, 2, 2])
LABELS = torch.tensor([3, 1, 4, 1, 5, 9])
V, D = 11, 5


def some(head, hidden, kept, step=None):
    question = QUESTION[kept].unique(return_inverse=True)[1]
    private = torch.zeros(len(kept), dtype=torch.bool)
    return AnswerTokens(hidden[kept], LABELS[kept], question, private, len(question.unique()), head, step)


def step(forget, reference):
    return Batch({"forget": forget}, {("forget", "irrelevant"): reference})


@pytest.fixture
def head():
    torch.manual_seed(0)
    return torch.nn.Linear(D, V, bias=False).requires_grad_(False)


@pytest.fixture
def hidden():
    return torch.randn(6, D, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.fixture
def ideal(head, hidden):
    """Answers of three tokens are likelier than ideal, those of three others are not."""
    p = (3 * torch.randn(6, V, generator=torch.Generator().manual_seed(2))).softmax(-1)
    above = (head(hidden).softmax(-1) > p)[torch.arange(6), LABELS]
    assert 0 < above.sum() < 6
    return p


def plain(head, hidden, p, ascent, per, lam=2.0, hinge=3.0):
    """The loss in plain lines."""
    log_q = head(hidden).log_softmax(-1)
    answer, ideal = log_q[torch.arange(6), LABELS], p[torch.arange(6), LABELS].log()
    pull = {"full": answer, "hinge": hinge * torch.clamp(answer - ideal, min=0), "none": 0 * answer}[ascent]
    values = pull + lam * (p * (p.log() - log_q)).sum(-1)
    if per == "token":
        return values.sum() / 6
    return (values[:3].mean() + values[3] + values[4:].mean()) / 3


@pytest.mark.parametrize("per", ["token", "question"])
@pytest.mark.parametrize("ascent", ["full", "hinge", "none"])
def test_loss_and_gradient(head, hidden, ideal, ascent, per):
    method = ViKeR(lam=2.0, ascent=ascent, hinge=3.0, per=per)
    everything = torch.arange(6)
    reference = reduce_distribution(ideal, LABELS, head.weight)
    loss = method.loss(step(some(head, hidden, everything), reference))["loss"]
    (found,) = torch.autograd.grad(loss, hidden)
    wanted = plain(head, hidden, ideal, ascent, per)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, hidden)[0])

    total = 0
    for part in (everything[:4], everything[4:]):
        seen = reduce_distribution(ideal[part], LABELS[part], head.weight)
        total = total + method.loss(step(some(head, hidden, part, (6, 3)), seen))["loss"]
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(torch.autograd.grad(total, hidden)[0], found)


def test_a_hinge_from_full_distributions(head, hidden, ideal):
    """As with a reverse KL, or where the output embedding cannot be reduced."""
    reference = reduce_distribution(ideal, LABELS, head.weight)
    batch = step(some(head, hidden, torch.arange(6)), reference)
    batch.distributions = {("forget", "irrelevant"): ideal}
    loss = ViKeR(lam=2.0, ascent="hinge", hinge=3.0).loss(batch)["loss"]
    torch.testing.assert_close(loss, plain(head, hidden, ideal, "hinge", "token"))


def ends(lam, ascent, answers, steps=1000, rate=2.0):
    """Where descent in the logits ends, token by token: student and ideal distribution, ``[T, 4]``; 0 is the answer."""
    answer = torch.tensor(answers)[:, None]
    p = torch.cat([answer, (1 - answer) * torch.tensor([0.6, 0.3, 0.1])], dim=1)
    label = torch.zeros(len(p), dtype=torch.long)
    head = torch.nn.Linear(4, 4, bias=False).requires_grad_(False)
    head.weight.copy_(torch.eye(4))
    reference = reduce_distribution(p, label, head.weight)
    logits = torch.zeros_like(p).requires_grad_()
    with torch.no_grad():
        logits[:, 0] = 4.0  # the vanilla model knows the answer
    method = ViKeR(lam=lam, ascent=ascent)
    for _ in range(steps):
        student = AnswerTokens(logits, label, label, label.bool(), 1, head)
        loss = method.loss(step(student, reference))["loss"]
        (slope,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= rate * len(p) / max(lam, 1) * slope
    return logits.softmax(-1).detach(), p


@pytest.mark.parametrize(("lam", "answers"), [(3.0, [0.4, 0.5, 0.9]), (10.0, [0.2, 0.5, 0.95])])
def test_full_ascent_ends_below_the_ideal_distribution(lam, answers):
    """At p_y = (lam pbar_y - 1) / (lam - 1), the others sharing the rest as the ideal distribution has it."""
    q, p = ends(lam, "full", answers)
    torch.testing.assert_close(q[:, 0], (lam * p[:, 0] - 1) / (lam - 1), rtol=0, atol=1e-3)
    torch.testing.assert_close(q[:, 1:], lam * p[:, 1:] / (lam - 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("lam", "answers"), [(1.0, [0.1, 0.5, 0.9]), (0.3, [0.1, 0.5, 0.9]), (3.0, [0.07, 0.3]), (10.0, [0.07])]
)
def test_full_ascent_has_no_end_elsewhere(lam, answers):
    """With lam of 1 and less nowhere; else where lam pbar_y < 1."""
    assert ends(lam, "full", answers)[0][:, 0].max() < 0.01


@pytest.mark.parametrize("ascent", ["hinge", "none"])
@pytest.mark.parametrize("lam", [0.3, 1.0, 3.0])
def test_hinge_and_none_end_at_the_ideal_distribution(lam, ascent):
    q, p = ends(lam, ascent, [0.07, 0.5, 0.9])
    torch.testing.assert_close(q, p, rtol=0, atol=0.01)


def test_a_hinge_alone_stops_at_the_ideal_probability():
    q, p = ends(0.0, "hinge", [0.07, 0.5], rate=0.1)
    torch.testing.assert_close(q[:, 0], p[:, 0], rtol=0, atol=0.03)
    assert ViKeR(lam=0, ascent="hinge").needs == (Forget(irrelevant=Irrelevant()),)
    assert ViKeR(lam=0).needs == (Forget(),)


def test_ascent_as_older_configs_had_it():
    assert [ViKeR(ascent=old).ascent for old in (True, False)] == ["full", "none"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0, "ascent": "none"}, "leave nothing to optimise"),
        ({"ascent": "hinge", "hinge": 0.0}, "hinge=0.0 must be > 0"),
        ({"ascent": "hinge", "ascent_clip": 5.0}, "ascent_clip=5.0 goes with ascent=full, found ascent=hinge"),
    ],
)
def test_settings_at_odds(options, message):
    with pytest.raises(UserError, match=message):
        ViKeR(**options)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"lam": 1.0}, True),
        ({"lam": 0.0}, True),
        ({"lam": 3.0, "direction": "reverse"}, True),
        ({"lam": 3.0}, False),
        ({"lam": 1.0, "ascent_clip": 5.0}, False),
        ({"lam": 1.0, "ascent": "hinge"}, False),
        ({"lam": 1.0, "ascent": "none"}, False),
    ],
)
def test_ascent_that_nothing_stops_is_warned_of(options, warned, caplog):
    caplog.set_level(logging.WARNING, "viker_lightning")
    method = ViKeR(**options)
    assert not caplog.records
    method.before_training(None)  # it looks at its own settings alone
    assert len(caplog.records) == warned and ("no lower bound; ascent=hinge, ascent=none" in caplog.text) == warned
