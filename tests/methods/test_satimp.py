"""SatImp against plain lines."""

import pytest
import torch

from support.plain_losses import LABELS, answers, ce, hold_against, in_parts, states, step
from viker_lightning.errors import UserError
from viker_lightning.methods import WGA, Forget, SatImp


@in_parts
@pytest.mark.parametrize(("beta1", "beta2"), [(5.0, 1.0), (0.5, 2.0), (1.0, 0.0)])
def test_loss_and_gradient(parts, beta1, beta2):
    def plain(logits, said):
        log_q = answers(logits["forget"].log_softmax(-1))
        p = log_q.detach().exp()
        return (p**beta1 * (1 - p) ** beta2 * log_q).mean() + 2 * ce(logits["retain"], "retain")

    terms = hold_against(SatImp(beta1=beta1, beta2=beta2, retain_weight=2.0), plain, parts)
    assert terms.keys() == {"loss", "token_weight", "retain_ce"}


def test_without_its_second_power_it_is_wga():
    one, other = (step(m, states()) for m in (SatImp(2.0, 0.0, 0.0), WGA(2.0, 0.0)))
    torch.testing.assert_close(one["loss"], other["loss"])
    assert SatImp(retain_weight=0.0).needs == (Forget(),)


def test_what_is_sure_is_left_alone():
    """Also where the probability rounds to 1, or a little above it."""
    logits = 60.0 * torch.nn.functional.one_hot(LABELS["forget"], 11)
    hidden = {"forget": logits.requires_grad_()}
    method = SatImp(beta1=1.0, beta2=0.5, retain_weight=0.0)
    terms = step(method, hidden, layer=torch.nn.Identity())
    (found,) = torch.autograd.grad(terms["loss"], hidden["forget"])
    assert terms["loss"].isfinite() and found.abs().max() == 0


def test_no_model_is_kept_that_nobody_asks():
    """open-unlearning copies the vanilla model for it (src/trainer/unlearn/satimp.py L14-15), and for WGA (L11-12)."""
    assert SatImp().references == WGA().references == {}


def test_defaults_are_those_of_the_yaml():
    """open-unlearning's YAML weighs forget and retain set .1 to 1, its class 1 to .1 (unlearn/satimp.py L7)."""
    method = SatImp()
    assert (method.beta1, method.beta2, method.retain_weight) == (5.0, 1.0, 1.0 / 0.1)


@pytest.mark.parametrize("options", [{"beta1": -1.0}, {"beta2": -1.0}, {"retain_weight": -1.0}])
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^SatImp\..*: found -.*, expected at least 0"):
        SatImp(**options)
