"""RMU: loss and gradient in plain lines, where states are read, and the published division."""

import pytest
import torch

from support.preparing import prepare
from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference
from viker_lightning.methods import RMU, Batch
from viker_lightning.models import AnswerTokens

D, LAYER = 5, 3
QUESTION = torch.tensor([0, 0, 0, 1, 2, 2])


def some(seed):
    return torch.randn(6, D, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return torch.nn.Linear(D, 11, bias=False).requires_grad_(False)


@pytest.fixture
def batch(head):
    labels = torch.zeros(6, dtype=torch.long)
    states = {stream: some(seed).requires_grad_() for seed, stream in enumerate(("forget", "retain"))}
    tokens = {
        stream: AnswerTokens(some(9), labels, QUESTION, labels.bool(), 3, head, layers={LAYER: states[stream]})
        for stream in states
    }
    before = Reference(torch.zeros(6, 0), torch.zeros(6), torch.zeros(6), some(2)[:, None])
    return Batch(tokens, {("retain", "own"): before})


def method(head, **settings):
    made = RMU(layer=LAYER, **settings)
    made.direction = torch.tensor([0.6, 0.8, 0, 0, 0])
    return made


def by_question(squares):
    """A mean over three questions, of three, one and two tokens."""
    per_token = squares.mean(-1)
    return (per_token[:3].mean() + per_token[3] + per_token[4:].mean()) / 3


def test_loss_and_gradient(head, batch):
    forget, retain = (batch.hidden(stream, LAYER) for stream in ("forget", "retain"))
    steered = by_question((forget - 7 * torch.tensor([0.6, 0.8, 0, 0, 0])) ** 2)
    kept = by_question((retain - some(2)) ** 2)
    found = method(head, steering=7.0, retain_weight=3.0).loss(batch)
    torch.testing.assert_close(found["loss"], steered + 3 * kept)
    torch.testing.assert_close((found["steered"], found["kept"]), (steered.detach(), kept.detach()))
    ours, plain = (torch.autograd.grad(loss, [forget, retain]) for loss in (found["loss"], steered + 3 * kept))
    torch.testing.assert_close(ours, plain)


def published(states, target, mask):
    """As it is coded: ``[b]`` sums over ``[b, 1]`` numbers of tokens."""
    squares = (states - target) ** 2
    sums = (squares * mask[..., None].expand_as(squares)).mean(2).sum(1)
    return (sums / mask.sum(-1, keepdim=True)).mean()


def test_a_question_is_divided_by_its_own_length(head, batch):
    """W1: there by those of all."""
    forget = batch.hidden("forget", LAYER).detach()
    padded, mask = torch.zeros(3, 3, D), torch.zeros(3, 3)
    for q, tokens in enumerate((forget[:3], forget[3:4], forget[4:])):
        padded[q, : len(tokens)], mask[q, : len(tokens)] = tokens, 1
    made = method(head, steering=7.0)
    target = 7 * made.direction
    ours = made.loss(batch)["steered"]
    assert not torch.isclose(published(padded, target, mask), ours, rtol=0.02)
    one = mask.clone()
    one[:, 1:] = 0  # of questions of one length it is the same
    torch.testing.assert_close(published(padded, target, one), ((padded[:, 0] - target) ** 2).mean())


def test_states_are_those_that_predict_the_answer(mllm, data):
    """W2: from the end of the prompt on, and not that of the last token of the answer."""
    person = data.people()[0]
    group = ImageGroup(person.id, person.images[0], vqa=person.vqa[:1])
    batch = mllm.pack([group])
    question = batch.encoded[0]
    first = len(batch.prefixes[0]) + len(question.prompt) - 1
    assert batch.columns.tolist() == list(range(first, first + len(question.answer)))
    assert batch.input_ids[0, batch.columns[1:]].tolist() == list(question.answer[:-1])


def test_the_direction_is_of_the_seed_and_kept(mllm):
    first, again, other = (RMU(layer=1) for _ in range(3))
    for made, seed in ((first, 3), (again, 3), (other, 4)):
        torch.manual_seed(seed)
        made.before_training(prepare(mllm, made))
    assert torch.equal(first.direction, again.direction) and not torch.equal(first.direction, other.direction)
    torch.testing.assert_close(first.direction.norm(), torch.tensor(1.0))
    assert first.direction.shape == (mllm.head.weight.shape[1],) and first.direction.min() >= 0
    other.load_state_dict(first.state_dict())
    assert torch.equal(first.direction, other.direction)


@pytest.mark.parametrize("wrong", [{"steering": 0}, {"retain_weight": -1}])
def test_what_is_refused(wrong):
    with pytest.raises(UserError, match=r"RMU: steering=.* must be"):
        RMU(**wrong)
