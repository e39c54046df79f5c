"""PDU against plain lines: loss, gradient and dual weight."""

import math

import pytest
import torch

from support.plain_losses import ce, head, hold_against, in_parts, some, states, step
from viker_lightning.errors import UserError
from viker_lightning.methods import PDU, Batch
from viker_lightning.models import AnswerTokens


@in_parts
def test_loss_and_gradient(parts):
    def plain(logits, said):
        z = logits["forget"]
        flat = ((z.max(-1).values - z.mean(-1)) ** 2).mean()
        return flat + 5 * (ce(logits["retain"], "retain") - 0.4)

    terms = hold_against(PDU(bound=0.4, retain_weight=5.0), plain, parts)
    assert terms["retain_weight"].item() == pytest.approx(5.0)
    torch.testing.assert_close(terms["retain_excess"] + 0.4, ce(head()(states()["retain"]), "retain").detach())


def walk(method, hidden, steps, rate=0.3):
    """Descends in the states; the dual weight before every step, and by how much the bound was missed in it."""
    found = []
    for _ in range(steps):
        terms = step(method, hidden)
        found.append((method.weight, terms["retain_excess"].item()))
        slopes = torch.autograd.grad(terms["loss"], [hidden[stream] for stream in method.streams])
        for stream, slope in zip(method.streams, slopes, strict=True):
            hidden[stream] = (hidden[stream] - rate * slope).detach().requires_grad_()
        method.after_step({name: value.detach() for name, value in terms.items()})
    return found


def new(**options):
    return PDU(**{"bound": 0.5, "retain_weight": 0.2, "rate": 0.5} | options)


def test_the_dual_weight_follows_its_bound():
    found = walk(new(rate=1.0), states(), 200)
    wanted = 0.2
    for weight, excess in found:
        assert weight == pytest.approx(wanted)
        wanted = max(0.0, wanted + 1.0 * excess)
    excesses = [excess for _, excess in found]
    assert max(excesses) > 0 > min(excesses), "it rises, and it falls"
    assert abs(excesses[-1]) < 0.5 * excesses[0]


def test_it_is_never_negative_and_survives_what_is_no_number():
    method = new()
    for excess, wanted in ((-9.0, 0.0), (math.nan, 0.0), (2.0, 1.0), (math.inf, 1.0)):
        method.after_step({"retain_excess": torch.tensor(excess)})
        assert method.weight == wanted


def test_it_stays_while_warming_up():
    found = walk(new(warmup=3), states(), 6)
    assert [weight == 0.2 for weight, _ in found] == [True] * 4 + [False] * 2


def test_a_run_that_is_resumed_finds_its_dual_weight_again():
    hidden = states()
    whole, first = new(warmup=1), new(warmup=1)
    wanted = walk(whole, dict(hidden), 6)
    moved = dict(hidden)
    before = walk(first, moved, 3)
    second = new(warmup=1)
    second.load_state_dict(first.state_dict())
    assert before + walk(second, moved, 3) == wanted and second.state_dict() == whole.state_dict()
    assert second.weight != 0.2


def test_the_published_mask_is_one_token_off():
    """open-unlearning (src/trainer/unlearn/pdu.py L115-122) masks logits with labels that are not shifted."""
    labels = torch.tensor([-100, -100, -100, 4, 7, 2])
    logits = some(1, 6, 11).requires_grad_()
    squared = (logits.max(-1).values - logits.mean(-1)) ** 2
    mask = labels != -100
    (theirs,) = torch.autograd.grad((squared * mask).sum() / mask.sum(), logits, retain_graph=True)
    predicts = torch.tensor([2, 3, 4])
    one, retain = torch.zeros(3, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    tokens = {
        "forget": AnswerTokens(logits[predicts], labels[predicts + 1], one, one.bool(), 1, torch.nn.Identity()),
        "retain": AnswerTokens(torch.zeros(1, 11), retain, retain, retain.bool(), 1, torch.nn.Identity()),
    }
    (ours,) = torch.autograd.grad(PDU().loss(Batch(tokens))["loss"], logits)
    assert theirs.abs().amax(-1).nonzero().flatten().tolist() == [3, 4, 5]
    assert ours.abs().amax(-1).nonzero().flatten().tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "options", [{"bound": 0.0}, {"rate": 0.0}, {"retain_weight": -1.0}, {"warmup": -1}], ids=lambda one: next(iter(one))
)
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^PDU: bound="):
        PDU(**options)
