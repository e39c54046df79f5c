"""Answer tokens: means over a whole step, and a stream that has run out."""

import pytest
import torch

from viker_lightning.models import AnswerTokens
from viker_lightning.models.logits import logits_of


def made(step=None):
    hidden, labels = torch.randn(5, 4), torch.tensor([1, 0, 2, 2, 1])
    question, private = torch.tensor([0, 0, 0, 1, 1]), torch.zeros(5, dtype=torch.bool)
    return AnswerTokens(hidden, labels, question, private, 2, torch.nn.Linear(4, 3), step)


def test_means_by_hand():
    values, tokens = torch.tensor([1.0, 2.0, 6.0, 3.0, 5.0]), made()
    assert tokens.mean(values) == pytest.approx(17 / 5) and tokens.mean(values, "question") == pytest.approx(3.5)
    assert tokens.sum_by_question(values).tolist() == [9, 8] and tokens.mean_by_question(values).tolist() == [3, 4]


def test_a_part_adds_its_share_of_the_step():
    values, part = torch.tensor([1.0, 2.0, 6.0, 3.0, 5.0]), made(step=(50.0, 7.0))
    assert part.mean(values) == pytest.approx(17 / 50) and part.mean(values, "question") == pytest.approx(7 / 7)
    assert part.token_share(values) == pytest.approx(17 / 50)
    assert part.question_share(torch.tensor([3.0, 4.0])) == pytest.approx(1.0)


def test_no_tokens():
    head = torch.nn.Linear(4, 3, dtype=torch.bfloat16)
    none = AnswerTokens.none(head, (50.0, 7.0), layers=(1, -1))
    assert none.hidden.shape == (0, 4) and none.hidden.dtype == torch.bfloat16
    assert none.labels.shape == none.question.shape == none.private.shape == (0,)
    assert (none.labels.dtype, none.question.dtype, none.private.dtype) == (torch.long, torch.long, torch.bool)
    assert none.n_questions == 0 and none.step == (50.0, 7.0)
    assert {layer: states.shape for layer, states in none.layers.items()} == {1: (0, 4), -1: (0, 4)}
    assert none.logits.shape == (0, 3) and none.mean(none.log_probs) == 0 and none.mean(none.log_probs, "question") == 0
    assert AnswerTokens.none(head, (1.0, 1.0)).layers == {}


def test_nothing_at_all_is_no_division_by_zero():
    tokens = made()
    fields = tokens.hidden, tokens.labels, tokens.question, tokens.private
    nothing = AnswerTokens(*(t[:0] for t in fields), 0, tokens.head)
    assert nothing.mean(nothing.log_probs) == 0 and nothing.mean(nothing.log_probs, "question") == 0
    one = AnswerTokens(*(t[:1] for t in fields), 1, tokens.head)
    assert one.mean(torch.tensor([3.0])) == 3 and one.mean(torch.tensor([3.0]), "question") == 3


def test_layers_come_with_the_tokens(mllm, groups):
    found = mllm.answer_tokens(mllm.pack(groups), (0, -1))
    assert [*found.layers] == [0, -1] and found.layers[0].shape == found.hidden.shape
    assert mllm.answer_tokens(mllm.pack(groups)).layers == {}


def test_logits_are_in_fp32_from_states_that_are_given():
    """Where weights are bf16 and frozen, from exact states, if there are any; else from the rounded ones."""
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 3, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    exact = torch.randn(5, 4)
    hidden = exact.bfloat16()
    weight = head.weight.float()
    torch.testing.assert_close(logits_of(head, hidden), hidden.float() @ weight.T)
    torch.testing.assert_close(logits_of(head, hidden, exact), exact @ weight.T)
    assert not torch.equal(logits_of(head, hidden), logits_of(head, hidden, exact))


def test_a_head_that_is_more_than_a_frozen_weight_is_called():
    hidden = torch.randn(5, 4)
    for bias, trained in ((True, False), (False, True)):
        head = torch.nn.Linear(4, 3, bias=bias).requires_grad_(trained).bfloat16()
        found = logits_of(head, hidden.bfloat16())
        assert torch.equal(found, head(hidden.bfloat16()).float()) and found.dtype == torch.float32
