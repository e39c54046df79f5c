"""Stranger, and other methods held on strangers: loss, gradient and dual weight against plain lines."""

import itertools
import math

import pytest
import torch

from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference, reduce_distribution
from viker_lightning.methods import NPO, Batch, GradientDifference, Held, Method, Stranger, ViKeR
from viker_lightning.methods.base import Forget, Irrelevant, Retain, Strangers, check_needs
from viker_lightning.models import AnswerTokens

V, D = 11, 5
LABELS = {
    "forget": torch.tensor([3, 1, 4, 1, 5, 9]),
    "strangers": torch.tensor([2, 6, 5, 3]),
    "retain": torch.tensor([8, 9, 7]),
}
QUESTION = {
    "forget": torch.tensor([0, 0, 0, 1, 2, 2]),
    "strangers": torch.tensor([0, 1, 1, 1]),
    "retain": torch.tensor([0, 0, 0]),
}
PARTS = [  # the last one has no strangers, the one before no retain question
    {"forget": slice(0, 3), "strangers": slice(0, 1), "retain": slice(0, 3)},
    {"forget": slice(3, 4), "strangers": slice(1, 4), "retain": slice(3, 3)},
    {"forget": slice(4, 6), "strangers": slice(4, 4), "retain": slice(3, 3)},
]
WHOLE = [dict.fromkeys(LABELS, slice(0, None))]


def some(seed, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return torch.nn.Linear(D, V, bias=False).requires_grad_(False)


@pytest.fixture
def hidden():
    """The student's states, by stream."""
    return {stream: some(n, len(labels), D).requires_grad_() for n, (stream, labels) in enumerate(LABELS.items())}


@pytest.fixture
def said(head):
    """What the frozen models say: three answers are likelier than ideal, three are not."""
    ideal = some(5, 6, V, scale=2.0).softmax(-1)
    return {
        ("forget", "irrelevant"): ideal,
        ("forget", "own"): head(some(6, 6, D)).softmax(-1),
        ("forget", "gold"): head(some(8, 6, D)).softmax(-1),
        ("strangers", "own"): head(some(7, 4, D)).softmax(-1),
    }


def batches(method, head, hidden, said, parts):
    """A step as a method sees it, in one part or in several; of references it gets what it declares."""
    for part in parts:
        tokens, references = {}, {}
        for stream, need in method.streams.items():
            here, step = part[stream], (len(LABELS[stream]), len(QUESTION[stream].unique()))
            question = QUESTION[stream][here].unique(return_inverse=True)[1]
            labels, number = LABELS[stream][here], len(question.unique())
            tokens[stream] = AnswerTokens(hidden[stream][here], labels, question, labels.bool(), number, head, step)
            for name, level in need.levels.items():
                p = said[stream, name][here]
                reference = reduce_distribution(p, labels, head.weight)
                if level == "log_prob":
                    reference = Reference(reference.vector[:, :0], reference.entropy, reference.log_prob)
                references[stream, name] = reference
        yield Batch(tokens, references)


def step(method, head, hidden, said, parts=WHOLE):
    """Terms of a step, added up over its parts, and the gradient in the states of every stream."""
    terms = {}
    for batch in batches(method, head, hidden, said, parts):
        for name, value in method.loss(batch).items():
            terms[name] = terms.get(name, 0) + value
    streams = list(method.streams)
    return terms, dict(zip(streams, torch.autograd.grad(terms["loss"], [hidden[s] for s in streams]), strict=True))


def log_q(head, hidden, stream):
    """All log-probabilities of the student, and those of the answers."""
    found = head(hidden[stream]).log_softmax(-1)
    return found, found[torch.arange(len(found)), LABELS[stream]]


def plain_kl(head, hidden, said, stream, name):
    p = said[stream, name]
    return (p * (p.log() - log_q(head, hidden, stream)[0])).sum(-1).mean()


def plain_stranger(head, hidden, said, lam=3.0, hinge=2.0, hold=5.0, retain_weight=0.5):
    answer = log_q(head, hidden, "forget")[1]
    ideal = said["forget", "irrelevant"][torch.arange(6), LABELS["forget"]].log()
    assert 0 < (answer > ideal).sum() < 6
    loss = lam * plain_kl(head, hidden, said, "forget", "irrelevant")
    loss = loss + hinge * torch.clamp(answer - ideal, min=0).mean()
    loss = loss + hold * plain_kl(head, hidden, said, "strangers", "own")
    return loss - retain_weight * log_q(head, hidden, "retain")[1].mean()


def plain_npo(head, hidden, said, name="own", beta=0.1):
    ratio = log_q(head, hidden, "forget")[1] - said["forget", name][torch.arange(6), LABELS["forget"]].log()
    questions = torch.stack([ratio[:3].sum(), ratio[3], ratio[4:].sum()])
    return -2 / beta * torch.nn.functional.logsigmoid(-beta * questions).mean()


def plain_viker(head, hidden, said, lam=2.0):
    answer = log_q(head, hidden, "forget")[1]
    return answer.mean() + lam * plain_kl(head, hidden, said, "forget", "irrelevant")


def plain_difference(head, hidden, said):
    return log_q(head, hidden, "forget")[1].mean() - log_q(head, hidden, "retain")[1].mean()


def held(plain, hold):
    return lambda head, hidden, said: (
        plain(head, hidden, said) + hold * plain_kl(head, hidden, said, "strangers", "own")
    )


GOLDEN = {
    "stranger": (lambda: Stranger(lam=3.0, hinge=2.0, hold=5.0, retain_weight=0.5), plain_stranger),
    "stranger, no hinge, no retain data": (
        lambda: Stranger(lam=1.5, hinge=0.0, hold=4.0),
        lambda *seen: plain_stranger(*seen, lam=1.5, hinge=0.0, hold=4.0, retain_weight=0.0),
    ),
    "held npo": (lambda: Held(NPO(), hold=5.0), held(plain_npo, 5.0)),
    "held viker": (lambda: Held(ViKeR(lam=2.0), hold=3.0), held(plain_viker, 3.0)),
    "held gradient difference": (lambda: Held(GradientDifference()), held(plain_difference, 30.0)),
}


@pytest.mark.parametrize("parts", [WHOLE, PARTS], ids=["one part", "three parts"])
@pytest.mark.parametrize("case", GOLDEN)
def test_loss_and_gradient(case, parts, head, hidden, said):
    make, plain = GOLDEN[case]
    method = make()
    check_needs(method)
    terms, found = step(method, head, hidden, said, parts)
    wanted = plain(head, hidden, said)
    torch.testing.assert_close(terms["loss"], wanted)
    torch.testing.assert_close(terms["hold_kl"], plain_kl(head, hidden, said, "strangers", "own").detach())
    gradients = torch.autograd.grad(wanted, [hidden[stream] for stream in method.streams])
    assert found["strangers"].norm() > 0.01
    for stream, gradient in zip(method.streams, gradients, strict=True):
        torch.testing.assert_close(found[stream], gradient)
    logged = method.logged(terms)
    assert {"loss", "hold_kl"} <= logged.keys()
    assert all(value.ndim == 0 for value in terms.values())


def test_the_loss_ends_at_the_ideal_distribution(head, hidden, said):
    """It is 0 there, and more wherever else: nothing pulls the student below."""
    said = {
        ("forget", "irrelevant"): head(hidden["forget"]).softmax(-1).detach(),
        ("strangers", "own"): head(hidden["strangers"]).softmax(-1).detach(),
    }
    assert step(Stranger(), head, hidden, said)[0]["loss"].item() == pytest.approx(0, abs=1e-4)
    for seed in range(9, 19):
        moved = {stream: states + 0.3 * some(seed, *states.shape) for stream, states in hidden.items()}
        assert step(Stranger(), head, moved, said)[0]["loss"] > 0.01
        assert step(Stranger(hinge=0.0), head, moved | {"strangers": hidden["strangers"]}, said)[0]["loss"] > 0.01


class Watched(Method):
    """Gradient ascent with something to keep."""

    def __init__(self):
        self.seen = []

    def loss(self, batch):
        return {"loss": batch.forget.mean(batch.forget.log_probs)}

    def after_step(self, terms):
        self.seen.append(terms["loss"].item())

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


def weight(method):
    return method.held.weight


def walk(method, head, hidden, said, steps, rate=0.5):
    """Descends in the states of the strangers; the weights of the hold before every step, and its KL in it."""
    weights, kls = [], []
    for _ in range(steps):
        weights.append(weight(method))
        terms, found = step(method, head, hidden, said)
        kls.append(terms["hold_kl"].item())
        hidden["strangers"] = (hidden["strangers"] - rate * found["strangers"]).detach().requires_grad_()
        method.after_step({name: value.detach() for name, value in terms.items()})
    return weights, kls


@pytest.mark.parametrize("make", [Stranger, lambda **options: Held(GradientDifference(), **options)])
def test_a_dual_weight_follows_its_bound(make, head, hidden, said):
    method, bound = make(hold=0.5, bound=0.2), 0.2
    assert method.state_dict() in ({"hold": 0.5}, {"own": {"hold": 0.5}, "method": {}})
    weights, kls = walk(method, head, hidden, said, 30)
    assert max(kls) > bound > min(kls), "it rises, and it falls"
    wanted = 0.5
    for found, kl in zip(weights, kls, strict=True):
        assert found == pytest.approx(wanted)
        wanted *= math.exp(0.05 * min(kl / bound - 1, 1))
    assert weight(method) == pytest.approx(wanted)
    assert max(b / a for a, b in itertools.pairwise(weights)) <= math.exp(0.05) + 1e-9


@pytest.mark.parametrize("make", [Stranger, lambda **options: Held(Watched(), **options)])
def test_a_run_that_is_resumed_finds_its_dual_weight_again(make, head, hidden, said):
    start = dict(hidden)
    whole = make(hold=0.5, bound=0.2)
    weights, kls = walk(whole, head, dict(start), said, 6)
    first, states = make(hold=0.5, bound=0.2), dict(start)
    before = walk(first, head, states, said, 3)
    second = make(hold=0.5, bound=0.2)
    second.load_state_dict(first.state_dict())
    after = walk(second, head, states, said, 3)
    assert before[0] + after[0] == weights and before[1] + after[1] == kls
    assert second.state_dict() == whole.state_dict() and weight(second) != 0.5


@pytest.mark.parametrize("make", [Stranger, lambda **options: Held(Watched(), **options)])
def test_a_dual_weight_rises_by_five_per_cent_a_step_at_most(make):
    """However far the KL is above the bound; a step that shows no stranger moves nothing."""
    method = make(hold=2.0, bound=0.1)
    for kl, shown, wanted in ((50.0, 1.0, math.exp(0.05)), (0.0, 1.0, 1.0), (50.0, 0.0, 1.0), (math.inf, 1.0, 1.0)):
        terms = {"loss": 0.0, "hold_kl": kl, "hold_weight": shown}
        method.after_step({name: torch.tensor(value) for name, value in terms.items()})
        assert weight(method) == pytest.approx(2.0 * wanted)


def test_what_methods_are_without_options():
    """As docs/concepts.md has it; and the least that is taken."""
    stranger, held, viker = Stranger(), Held(NPO()), ViKeR()
    assert (stranger.lam, stranger.hinge, stranger.hold, stranger.bound, stranger.k) == (3.0, 15.0, 30.0, None, 20)
    assert (stranger.strangers, stranger.rehearsal, stranger.retain_weight) == ("people", False, 0.0)
    assert (held.hold, held.bound, held.strangers, held.stranger_count, held.rehearsal) == (
        30.0,
        None,
        "people",
        20,
        False,
    )
    assert viker.hinge == 1.0
    assert Stranger(lam=0.5, k=1).k == ViKeR(k=1).k == 1


def test_without_a_bound_the_weight_stays_and_nothing_is_kept(head, hidden, said):
    for method in (Stranger(hold=0.5), Held(GradientDifference(), hold=0.5)):
        assert walk(method, head, dict(hidden), said, 3)[0] == [0.5] * 3
        assert method.state_dict() == {}
    inner = Held(Watched(), hold=0.5)
    walk(inner, head, dict(hidden), said, 2)
    again = Held(Watched(), hold=0.5)
    again.load_state_dict(inner.state_dict())
    assert again.method.seen == inner.method.seen and len(again.method.seen) == 2 and weight(again) == 0.5


def test_a_dual_weight_survives_a_kl_that_is_no_number():
    method = Stranger(hold=2.0, bound=0.1)
    for kl in (math.nan, math.inf):
        method.after_step({"hold_kl": torch.tensor(kl), "hold_weight": torch.tensor(2.0)})
    assert weight(method) == 2.0


def test_a_dual_weight_stays_where_no_stranger_is_shown_and_falls_where_nothing_has_moved():
    method = Stranger(hold=2.0, bound=0.1)
    method.after_step({"hold_kl": torch.tensor(0.0), "hold_weight": torch.tensor(0.0)})
    assert weight(method) == 2.0
    method.after_step({"hold_kl": torch.tensor(-1e-7), "hold_weight": torch.tensor(2.0)})
    assert weight(method) == pytest.approx(2.0 * math.exp(-0.05), rel=1e-6), "0 but for rounding"


def test_what_is_declared():
    method = Stranger(k=7, strangers="some/folder", rehearsal=True)
    folder = "some/folder"
    shown = Strangers(folder, 7, rehearsal=True, own="kl")
    assert method.needs == (Forget(irrelevant=Irrelevant(folder, 7)), shown) and method.answers_only
    assert method.pictures_needed == {"irrelevant": (folder, 7), "strangers": (folder, 7)}
    assert Stranger(retain_weight=0.1).needs[2:] == (Retain(),)
    viker = ViKeR(k=3, images="pets")
    method = Held(viker, strangers="people", stranger_count=9)
    assert method.needs == (*viker.needs, Strangers("people", 9, own="kl")) and method.answers_only
    assert method.pictures_needed == {"irrelevant": ("pets", 3), "strangers": ("people", 9)}


class Passes(Method):
    in_passes = True


class Whole(Method):
    whole_steps = True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stranger(lam=0.0), "Stranger: lam=0.0 must be > 0"),
        (lambda: Stranger(hinge=-1.0), "hinge=-1.0 and retain_weight=0.0 >= 0"),
        (lambda: Stranger(retain_weight=-0.5), "retain_weight=-0.5 >= 0"),
        (lambda: Stranger(k=0), "k=0 >= 1"),
        (lambda: Stranger(hold=0.0), "hold=0.0 and bound=None must be > 0"),
        (lambda: Stranger(bound=0.0), "hold=30.0 and bound=0.0 must be > 0; without a bound set it to null"),
        (lambda: Held(NPO(), hold=-1.0), "hold=-1.0 and bound=None must be > 0"),
        (lambda: Held(NPO(), bound=-0.1), "hold=30.0 and bound=-0.1 must be > 0"),
        (lambda: Held(Stranger()), "Held: Stranger cannot be inside, for it has strangers already"),
        (lambda: Held(Held(NPO())), "Held: Held cannot be inside, for it has strangers already"),
        (lambda: Held(Passes()), "Held: Passes cannot be inside"),
        (lambda: Held(Whole()), "Held: Whole cannot be inside"),
    ],
)
def test_settings_at_odds(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
