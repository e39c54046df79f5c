"""JensUn against plain lines."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from support.plain_losses import head, hold_against, in_parts, said, states, step
from viker_lightning.data.encoding import Encoded
from viker_lightning.data.records import Labels
from viker_lightning.errors import UserError
from viker_lightning.methods import JensUn
from viker_lightning.methods.jensun import js, refusal_js

IDS = (6, 2)
"""Of the refusal."""

WANTED = torch.tensor([6, 2, 6, 6, 6, 2])
"""It begins anew with every answer; these have 3, 1 and 2 tokens."""


class Encoder:
    """Of a chat template with an end of sequence, which is no part of the refusal."""

    eos = 9

    def encode(self, vqa, image):
        assert (vqa.answer, vqa.labels, image) == ("No idea", Labels.UNENDED, False)
        return Encoded((1, 2), (*IDS, self.eos), (False,) * 3, (False,) * 3)


def prepared(**options):
    method = JensUn(**options)
    method.before_training(SimpleNamespace(mllm=SimpleNamespace(encoder=Encoder()), resumed=False))
    return method


def divergence(p, q):
    log_m = ((p + q) / 2).log()
    return sum((one * (one.clamp_min(1e-30).log() - log_m)).sum(-1).mean() for one in (p, q)) / 2


@in_parts
def test_loss_and_gradient(parts):
    def plain(logits, said):
        forget = divergence(F.one_hot(WANTED, 11).float(), logits["forget"].softmax(-1))
        return forget + 3 * divergence(said["retain", "own"], logits["retain"].softmax(-1))

    terms = hold_against(prepared(retain_weight=3.0), plain, parts)
    assert terms.keys() == {"loss", "forget_js", "retain_js"}


def test_it_is_bounded():
    """By ln 2 where nothing is in common, by 0 where all is, without a number that is none."""
    log_p = torch.tensor([-1e4, -200.0, 0.0], requires_grad=True)
    found = refusal_js(log_p)
    torch.testing.assert_close(found, torch.tensor([2.0, 2.0, 1.0]).log(), rtol=0, atol=1e-6)
    assert torch.autograd.grad(found.sum(), log_p)[0].isfinite().all()
    logits = torch.tensor([[300.0, 0.0, 0.0], [0.0, 300.0, 0.0]], requires_grad=True)
    found = js(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), logits)
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0]).log(), rtol=0, atol=1e-6)
    assert torch.autograd.grad(found.sum(), logits)[0].isfinite().all()


def test_what_is_kept_costs_nothing():
    """A student that says of retained people what the vanilla model says pays for the forget set alone."""
    hidden, known = states(), said()
    known["retain", "own"] = head()(hidden["retain"]).softmax(-1).detach()
    terms = step(prepared(), hidden, known=known)
    torch.testing.assert_close(terms["retain_js"], torch.tensor(0.0), rtol=0, atol=1e-6)
    assert 0 < terms["loss"] < torch.log(torch.tensor(2.0))


def test_the_first_published_target_is_no_distribution():
    """At 925e221 (src/trainer/utils.py L172-175) every token of the refusal has probability 1 at every position."""
    target = torch.zeros(6, 11)
    target[..., torch.tensor(IDS).repeat(4)[:6]] = 1.0
    assert (target.sum(-1) == 2).all(), "two tokens, which come at once and in no order"
    ours = F.one_hot(WANTED, 11).float()
    assert (ours.sum(-1) == 1).all()
    hidden = states()
    logits = head()(hidden["forget"])
    found = step(prepared(), hidden)["forget_js"]
    torch.testing.assert_close(found, divergence(ours, logits.softmax(-1)).detach())
    assert (divergence(target, logits.softmax(-1)) - found).abs() > 0.1


@pytest.mark.parametrize("options", [{"retain_weight": 0.0}, {"refusal": " "}])
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^JensUn: retain_weight="):
        JensUn(**options)
