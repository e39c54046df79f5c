"""VGID against plain lines."""

import pytest

from support.plain_losses import hold_against, in_parts
from viker_lightning.errors import UserError
from viker_lightning.methods import VGID, Forget, Noised, Retain


def kl(p, logits):
    return (p * (p.log() - logits.log_softmax(-1))).sum(-1).mean()


@in_parts
def test_loss_and_gradient(parts):
    def plain(logits, said):
        return kl(said["forget", "noised"], logits["forget"]) + 2 * kl(said["retain", "own"], logits["retain"])

    terms = hold_against(VGID(retain_weight=2.0), plain, parts)
    assert terms.keys() == {"loss", "forget_kl", "retain_kl"}


def test_what_is_asked():
    method = VGID(noise=0.25, instruction="")
    assert (method.noise, method.instruction, method.answers_only) == (0.25, "", True)
    assert method.needs == (Forget(noised=Noised(0.25)), Retain(own="kl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 1.5}, "noise: found 1.5, expected 0 to 1"),
        ({"retain_weight": 0.0}, "retain_weight=0.0 must be > 0"),
        ({"noise": 0.0, "instruction": ""}, "noise=0 without instruction asks"),
    ],
)
def test_settings_at_odds(options, message):
    with pytest.raises(UserError, match=message):
        VGID(**options)
