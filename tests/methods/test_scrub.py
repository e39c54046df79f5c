"""SCRUB against plain lines, turn by turn."""

import pytest
import torch

from support.plain_losses import ce, head, hold_against, in_parts, states, step
from viker_lightning.errors import UserError
from viker_lightning.methods import SCRUB


def kl(p, logits):
    return (p * (p.log() - logits.log_softmax(-1))).sum(-1).mean()


def away(logits, said):
    return -kl(said["forget", "own"], logits["forget"])


def back(logits, said):
    retain = logits["retain"]
    return 2 * ce(retain, "retain") + 3 * kl(said["retain", "own"], retain)


@in_parts
@pytest.mark.parametrize(("number", "plain"), [(0, back), (1, back), (2, away), (3, back), (5, away), (8, back)])
def test_loss_and_gradient(parts, number, plain):
    """Steps 2 and 5 forget; from step 8 on none does."""
    method = SCRUB(retain_weight=2.0, kl_weight=3.0, every=3, until=8)
    terms = hold_against(method, plain, parts, number)
    assert terms.keys() == {"loss", "forget_kl", "retain_kl", "retain_ce"}


def test_whose_turn_it_is():
    assert [n for n in range(9) if SCRUB().forgets(n)] == [1, 3, 5, 7]
    assert [n for n in range(20) if SCRUB(every=4, until=11).forgets(n)] == [3, 7]
    assert [n for n in range(20) if SCRUB(every=4, until=12).forgets(n)] == [3, 7, 11]


def test_the_first_step_moves_a_student_that_is_its_teacher():
    """The published script's does not move at all: its optimizer has another copy (scrub.py L45-46, L67 at 4ccce66).

    Away from the teacher there is no slope yet, so the first step is one of the retain set.
    """
    hidden = states()
    known = {(stream, "own"): head()(hidden[stream]).softmax(-1).detach() for stream in ("forget", "retain")}
    first, second = (step(SCRUB(), hidden, number=number, known=known)["loss"] for number in (0, 1))
    assert torch.autograd.grad(first, hidden["retain"])[0].norm() > 0.1
    assert torch.autograd.grad(second, hidden["forget"])[0].norm() < 1e-5


@pytest.mark.parametrize(
    "options",
    [{"retain_weight": 0.0}, {"kl_weight": -1.0}, {"every": 1}, {"every": 3, "until": 2}],
    ids=lambda one: next(iter(one)),
)
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^SCRUB: retain_weight="):
        SCRUB(**options)
