"""CE-U against plain lines."""

import pytest
import torch

from support.plain_losses import LABELS, QUESTION, ce, head, hold_against, in_parts, some, states, step
from viker_lightning.errors import UserError
from viker_lightning.methods import CEU, Batch, Forget, Retain
from viker_lightning.models import AnswerTokens

COUNTED = {0: [0, 1, 2, 3, 4, 5], 1: [1, 2, 5], 2: [2], 3: []}
"""Tokens that count, by how many first ones of the answers are left alone; the answers have 3, 1 and 2 tokens."""


@in_parts
@pytest.mark.parametrize("skip", COUNTED)
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_loss_and_gradient(parts, skip, weight):
    assert QUESTION["forget"].tolist() == [0, 0, 0, 1, 2, 2]

    def plain(logits, said):
        total = 0 * logits["forget"].sum()
        for t in COUNTED[skip]:
            others = logits["forget"][t].detach().clone()
            others[LABELS["forget"][t]] = -torch.inf
            total = total - (others.softmax(-1) * logits["forget"][t].log_softmax(-1)).sum()
        return total / 6 + (weight * ce(logits["retain"], "retain") if weight else 0)

    method = CEU(skip=skip, retain_weight=weight)
    assert method.needs == (Forget(), *([Retain()] if weight else []))
    hold_against(method, plain, parts)


def test_the_pull_of_a_token_vanishes_with_its_probability():
    hidden = states()
    logits = head()(hidden["forget"]).detach()
    p, y = logits.softmax(-1), torch.nn.functional.one_hot(LABELS["forget"], 11)
    (found,) = torch.autograd.grad(step(CEU(skip=0), hidden)["loss"], hidden["forget"])
    q = p * (1 - y) / (p * (1 - y)).sum(-1, keepdim=True)
    torch.testing.assert_close(found, (p - q) @ head().weight / 6)


def test_answers_of_one_token():
    """open-unlearning (src/trainer/unlearn/ceu.py L58-61) takes a mean of nothing there; ours is 0."""
    logits, label = some(1, 2, 11).requires_grad_(), torch.tensor([3, 4])
    left = torch.zeros(2, dtype=torch.bool)  # without the first token of each answer
    theirs = torch.nn.functional.cross_entropy(logits[left], logits[left].softmax(-1))
    tokens = AnswerTokens(logits, label, torch.tensor([0, 1]), left, 2, torch.nn.Identity())
    ours = CEU().loss(Batch({"forget": tokens}))["loss"]
    assert theirs.isnan() and ours == 0 and torch.autograd.grad(ours, logits)[0].abs().max() == 0


@pytest.mark.parametrize("options", [{"skip": -1}, {"retain_weight": -1.0}])
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^CEU\..*: found -.*, expected at least 0"):
        CEU(**options)
