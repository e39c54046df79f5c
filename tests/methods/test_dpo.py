"""DPO against plain lines, with refusals (IdkPO) and with wrong answers (AltPO)."""

import pytest
import torch

from support.plain_losses import (
    QUESTION,
    WHOLE,
    answers,
    batches,
    ce,
    head,
    hold_against,
    questions,
    said,
    some,
    states,
)
from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference
from viker_lightning.methods import DPO, Alternative, Batch, Forget, Retain
from viker_lightning.metrics import REFUSALS
from viker_lightning.models import AnswerTokens

BETA = 0.3


def ratios(logits, said, stream):
    log_q = answers(logits[stream].log_softmax(-1), stream)
    return questions(log_q - answers(said[stream, "own"], stream).log(), stream)


@pytest.mark.parametrize("weight", [4.0, 0.0])
def test_loss_and_gradient(weight):
    def plain(logits, said):
        margin = ratios(logits, said, "alternative") - ratios(logits, said, "forget")
        loss = (2 / BETA * torch.log(1 + torch.exp(-BETA * margin))).mean()
        return loss + (weight * ce(logits["retain"], "retain") if weight else 0)

    method = DPO(beta=BETA, retain_weight=weight)
    asked = (Forget(own="log_prob"), Alternative(REFUSALS, own="log_prob"))
    assert method.needs == (*asked, *([Retain()] if weight else []))
    terms = hold_against(method, plain)
    assert terms.keys() == {"loss", "log_ratio", "alternative_log_ratio", *(["retain_ce"] if weight else [])}


@pytest.mark.parametrize("answered", [[0, 1, 2], [0, 2], [1], []], ids=str)
def test_own_alternatives_of_some_questions(answered):
    """They are told by the frozen model's state in front of the answer, rounding apart; its other states are noise."""
    kept = torch.tensor([token for token, q in enumerate(QUESTION["alternative"].tolist()) if q in answered]).long()
    known, hidden, asked = said(), states(), some(5, 3, 4)
    batch = next(batches(DPO(beta=BETA, retain_weight=0.0), hidden, known, WHOLE))
    tokens, references = dict(batch.tokens), dict(batch.references)
    one = batch.alternative
    question = torch.searchsorted(torch.tensor(answered), one.question[kept])
    tokens["alternative"] = AnswerTokens(
        one.hidden[kept],
        one.labels[kept],
        question,
        one.private[kept],
        len(answered),
        one.head,
        (5, len(answered) or 1),
    )
    references["alternative", "own"] = Reference(
        torch.zeros(len(kept), 0), torch.zeros(len(kept)), references["alternative", "own"].log_prob[kept]
    )
    for stream, places in (("forget", [0, 3, 4]), ("alternative", [0, 1, 4])):
        layer = some(6, len(QUESTION[stream]), 4)
        layer[places] = asked + 1e-4 * some(len(stream), 3, 4)
        layer = layer if stream == "forget" else layer[kept]
        references[stream, "own"].layers = layer[:, None]
        tokens[stream].layers = {-1: torch.zeros_like(layer)}
    method = DPO(beta=BETA, retain_weight=0.0, alternative="own")
    found = method.loss(Batch(tokens, references))["loss"]
    logits = {stream: head()(hidden[stream]) for stream in ("forget", "alternative")}
    margin = (ratios(logits, known, "alternative") - ratios(logits, known, "forget"))[answered]
    wanted = (2 / BETA * torch.log(1 + torch.exp(-BETA * margin))).sum() / (len(answered) or 1)
    torch.testing.assert_close(found, wanted)
    for stream in logits:
        one, other = (torch.autograd.grad(loss, hidden[stream], retain_graph=True)[0] for loss in (found, wanted))
        torch.testing.assert_close(one, other)


def test_what_a_pair_prefers():
    """IdkPO by default; a pair is never taken apart, and is one of answers."""
    assert (DPO().alternative, DPO(alternative="wrong").alternative) == (REFUSALS, "wrong")
    assert (DPO().layers, DPO(alternative="own", stranger_count=3).layers) == ((), (-1,))
    assert DPO(alternative=["No."]).alternative == ("No.",) and DPO().whole_steps and DPO().answers_only


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta=0.0 must be > 0"),
        ({"retain_weight": -1.0}, "retain_weight=-1.0 >= 0"),
        ({"alternative": ()}, "alternative is empty"),
    ],
)
def test_settings_at_odds(options, message):
    with pytest.raises(UserError, match=message):
        DPO(**options)
