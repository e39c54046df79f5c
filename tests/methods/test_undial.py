"""UNDIAL against plain lines."""

import pytest
import torch
import torch.nn.functional as F

from support.plain_losses import LABELS, ce, head, hold_against, in_parts, some, states, step
from viker_lightning.errors import UserError
from viker_lightning.ideal import statistics_of
from viker_lightning.methods import UNDIAL, Batch, Forget, Retain
from viker_lightning.models import AnswerTokens

HOT = F.one_hot(LABELS["forget"], 11)


@in_parts
@pytest.mark.parametrize(("beta", "weight"), [(0.0, 0.0), (2.0, 0.0), (10.0, 3.0)])
def test_loss_and_gradient(parts, beta, weight):
    def plain(logits, said):
        target = (said["forget", "own"].log() - beta * HOT).softmax(-1)
        loss = F.cross_entropy(logits["forget"], target)
        return loss + (weight * ce(logits["retain"], "retain") if weight else 0)

    method = UNDIAL(beta=beta, retain_weight=weight)
    assert method.needs == (Forget(own="full"), *([Retain()] if weight else []))
    hold_against(method, plain, parts)


def test_a_vanilla_model_that_is_sure():
    """The other tokens share what is left as it has them, though 1 - p(y) is nothing but rounding."""
    logits = some(3, 6, 11) + 30 * HOT
    target = (logits.double() - 10 * HOT).softmax(-1)
    hidden = states()
    known = {("forget", "own"): logits.softmax(-1)}
    loss = step(UNDIAL(beta=10.0), hidden, known=known)["loss"]
    (found,) = torch.autograd.grad(loss, hidden["forget"])
    q = head()(hidden["forget"]).softmax(-1).double()
    wanted = (q - target) @ head().weight.double() / 6
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    loss = step(UNDIAL(beta=40.0), states(), known=known)["loss"]
    target = (logits.double() - 40 * HOT).softmax(-1)
    torch.testing.assert_close(loss.double(), -(target * q.log()).sum(-1).mean(), rtol=1e-4, atol=1e-5)


def published(logits, teacher, labels, beta):
    """open-unlearning src/trainer/utils.py L85-99: no position is left out, and -100 counts from the end."""
    mask = torch.zeros_like(teacher)
    mask[torch.arange(len(labels)), labels] = 1.0
    return F.cross_entropy(logits, (teacher - beta * mask).softmax(-1))


def test_the_published_mean_is_over_prompt_and_padding():
    """It pulls where nobody answers, and there at a token nobody has named; ours has answer tokens alone."""
    student, teacher = some(1, 9, 128).requires_grad_(), some(2, 9, 128)
    labels = torch.tensor([-100, -100, -100, -100, 5, 70, 9, -100, -100])
    rows, one = slice(4, 7), torch.zeros(3, dtype=torch.long)
    tokens = AnswerTokens(student[rows], labels[rows], one, one.bool(), 1, torch.nn.Identity())
    p = teacher[rows].softmax(-1)
    key = ("forget", "own")
    ours = UNDIAL(beta=10.0).loss(Batch({"forget": tokens}, {key: statistics_of(p, labels[rows])}, {key: p}))["loss"]
    torch.testing.assert_close(ours, published(student[rows], teacher[rows], labels[rows], 10.0))
    (found,) = torch.autograd.grad(published(student, teacher, labels, 10.0), student)
    assert found[:4].abs().max() > 0.001 and found[7:].abs().max() > 0.001
    q = student.softmax(-1)
    torch.testing.assert_close(found[0, 28], q[0, 28] / 9, rtol=1e-3, atol=1e-6)  # of 128 the hundredth from the end


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"retain_weight": -1.0}])
def test_settings_at_odds(options):
    with pytest.raises(UserError, match="expected at least 0"):
        UNDIAL(**options)
