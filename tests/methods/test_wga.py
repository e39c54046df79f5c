"""WGA against plain lines."""

import pytest

from support.plain_losses import answers, ce, hold_against, in_parts
from viker_lightning.errors import UserError
from viker_lightning.methods import WGA, Forget


@in_parts
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_loss_and_gradient(parts, beta):
    """With beta 0 it is gradient difference."""

    def plain(logits, said):
        log_q = answers(logits["forget"].log_softmax(-1))
        return (log_q.detach().exp() ** beta * log_q).mean() + 2 * ce(logits["retain"], "retain")

    terms = hold_against(WGA(beta=beta, retain_weight=2.0), plain, parts)
    assert terms.keys() == {"loss", "token_weight", "retain_ce"}
    assert (terms["token_weight"] < 0.999) == (beta > 0)


def test_without_retain_data():
    method = WGA(retain_weight=0.0)
    assert method.needs == (Forget(),)
    hold_against(method, lambda logits, said: weighed(answers(logits["forget"].log_softmax(-1))))


def weighed(log_q):
    return (log_q.detach().exp() * log_q).mean()


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"retain_weight": -1.0}])
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^WGA\..*: found -.*, expected at least 0"):
        WGA(**options)
