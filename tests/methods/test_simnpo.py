"""SimNPO against plain lines."""

import pytest
import torch

from support.plain_losses import answers, ce, head, hold_against, in_parts, questions, states, step
from viker_lightning.errors import UserError
from viker_lightning.methods import Forget, SimNPO


@in_parts
@pytest.mark.parametrize("delta", [0.0, 1.5])
def test_loss_and_gradient(parts, delta):
    def plain(logits, said):
        nll = questions(-answers(logits["forget"].log_softmax(-1))) / torch.tensor([3, 1, 2])
        forget = -2 / 3.0 * torch.log(torch.sigmoid(3.0 * (nll - delta))).mean()
        return forget + 2 * ce(logits["retain"], "retain")

    terms = hold_against(SimNPO(beta=3.0, delta=delta, retain_weight=2.0), plain, parts)
    assert terms.keys() == {"loss", "question_ce", "retain_ce"}


def test_without_retain_data_it_becomes_ascent_on_every_question_alike():
    hidden = states()
    method = SimNPO(beta=1e-4, retain_weight=0.0)
    assert method.needs == (Forget(),)
    terms = step(method, hidden)
    found, wanted = (torch.autograd.grad(loss, hidden["forget"])[0] for loss in (terms["loss"], mean_ascent(hidden)))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(terms["question_ce"], -mean_ascent(hidden).detach())


def mean_ascent(hidden):
    log_q = answers(head()(hidden["forget"]).log_softmax(-1))
    return (questions(log_q) / torch.tensor([3, 1, 2])).mean()


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"retain_weight": -1.0}])
def test_settings_at_odds(options):
    with pytest.raises(UserError, match=r"^SimNPO: beta="):
        SimNPO(**options)
