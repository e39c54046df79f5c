"""What methods declare: mistakes are one line, what is not declared cannot be read, wrappers declare the same."""

from types import SimpleNamespace

import pytest
import torch

from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference
from viker_lightning.methods import Around, Batch, GradientAscent, Held, Method, Stranger
from viker_lightning.methods.base import check_needs, check_terms
from viker_lightning.models import AnswerTokens


def declaring(**declared):
    return type("Mine", (Method,), declared)()


FINE = [
    {},
    {"needs": {"forget": {"irrelevant": "kl", "own": "log_prob"}, "retain": {"own": "full"}}},
    {"needs": {"forget": {"gold": "kl"}}, "gold": "some/folder"},
    {"needs": {"forget": {"noised": "kl"}}, "noise": 0.2},
    {"needs": {"forget": {"noised": "kl"}}, "instruction": "You do not know anybody."},
    {"needs": {"alternative": {}}, "alternative": ("I do not know.",)},
    {"needs": {"alternative": {"own": "kl"}}, "alternative": "wrong"},
    {"needs": {"forget": {}, "retain": {}}, "in_passes": True},
    {"needs": {}, "takes_steps": False},
    {"reads_answers": False, "layers": (-1,)},
]


@pytest.mark.parametrize("declared", FINE, ids=str)
def test_what_can_be_given(declared):
    check_needs(declaring(**declared))


WRONG = {
    "a stream": ({"needs": {"forgot": {}}}, "Mine.needs: found 'forgot', .*; did you mean 'forget'[?]"),
    "another stream": ({"needs": {"x": {}}}, "Mine.needs: found 'x', expected one of forget, .*; use one of these"),
    "a reference": (
        {"needs": {"forget": {"irelevant": "kl"}}},
        r"Mine.needs\['forget'\]: found 'irelevant', expected one of own, .*; did you mean 'irrelevant'[?]",
    ),
    "a level": (
        {"needs": {"strangers": {"own": "KL"}}},
        r"Mine.needs\['strangers'\]\['own'\]: found 'KL', expected one of log_prob, kl, full; use one of these",
    ),
    "no stream": ({"needs": {}}, "Mine.needs: found no stream, expected one of forget, "),
    "no gold": ({"needs": {"forget": {"gold": "kl"}}}, "Mine.gold: needs a model to ask, found none"),
    "no alternative": ({"needs": {"alternative": {}}}, "Mine.alternative: needs other answers, found none"),
    "an alternative": (
        {"needs": {"alternative": {}}, "alternative": "wrnog"},
        "Mine.alternative: found 'wrnog', expected one of wrong, own; did you mean 'wrong'",
    ),
    "a sentence alone": (
        {"needs": {"alternative": {}}, "alternative": "I do not know."},
        "Mine.alternative: found 'I do not know.', expected one of wrong, own",
    ),
    "not noised": ({"needs": {"forget": {"noised": "kl"}}}, "Mine.noise, instruction: noised is asked the same as own"),
    "no layers": ({"reads_answers": False}, "Mine.reads_answers: is false, but no layers are declared"),
    "passes": (
        {"needs": {"forget": {}, "strangers": {}}, "in_passes": True},
        "Mine.in_passes: goes with forget and retain, no more and no less",
    ),
    "passes of one stream": (
        {"needs": {"forget": {}}, "in_passes": True},
        "Mine.in_passes: goes with forget and retain, no more and no less",
    ),
    "a layer's name": ({"layers": ("x",)}, r"Mine.layers: found \('x',\), expected numbers of decoder layers"),
    "much noise": ({"needs": {"forget": {"noised": "kl"}}, "noise": 3.0}, "Mine.noise: found 3.0, expected 0 to 1"),
    "forgotten strangers": (
        {"needs": {"strangers": {}}, "strangers": "forget"},
        "Mine.strangers: found 'forget', but the people to be forgotten are no strangers",
    ),
    "no images": ({"needs": {"forget": {"irrelevant": "kl"}}, "k": 0}, "Mine.k: found 0, expected at least 1 image"),
    "no strangers": (
        {"needs": {"strangers": {}}, "stranger_count": 0},
        "stranger_count, strangers_per_step: found 0 and 4",
    ),
    "none a step": (
        {"needs": {"strangers": {}}, "strangers_per_step": 0},
        "strangers_per_step: found 20 and 0",
    ),
    "a list": ({"needs": {"forget": ["own"]}}, r"Mine.needs\['forget'\]: found \['own'\], expected references"),
    "a level alone": ({"needs": {"forget": "kl"}}, r"Mine.needs\['forget'\]: found 'kl', expected references"),
    "streams alone": ({"needs": ("forget", "retain")}, r"Mine.needs: found \('forget', 'retain'\), expected streams"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_is_one_line(case):
    declared, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        check_needs(declaring(**declared))
    assert "\n" not in str(error.value)


V, D = 7, 4


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    head = torch.nn.Linear(D, V, bias=False).requires_grad_(False)
    labels = torch.tensor([1, 2, 3])
    return AnswerTokens(torch.randn(3, D), labels, torch.zeros_like(labels), labels.bool(), 1, head)


def reference(tokens, width=D):
    return Reference(torch.zeros(3, width), torch.zeros(3), tokens.log_probs.detach())


def test_what_is_not_declared_cannot_be_read(tokens):
    names = {("forget", "own"): reference(tokens), ("forget", "gold"): reference(tokens, 0)}
    batch = Batch({"forget": tokens}, names)
    assert batch.forget is tokens and batch["forget"] is tokens
    assert batch.kl("forget", "own").shape == (3,)
    reads = {
        'reads strangers, but declares forget; add "strangers": {} to its needs': lambda: batch.strangers,
        'reads retain, but declares forget; add "retain": {} to its needs': lambda: batch.retain,
        'reads alternative, but declares forget; add "alternative": {} to its needs': lambda: batch.alternative,
        'reads what irrelevant says of forget, but does not declare it; add "forget": {"irrelevant": "kl"}': (
            lambda: batch.reference("forget", "irrelevant")
        ),
        'reads what own says of strangers, but does not declare it; add "strangers": {"own": "kl"}': (
            lambda: batch.kl("strangers", "own")
        ),
        'the forward KL on forget needs "gold": "kl" in the method\'s needs': lambda: batch.kl("forget", "gold"),
        'the reverse KL on forget needs "own": "full" in the method\'s needs': (
            lambda: batch.kl("forget", "own", "reverse")
        ),
    }
    for message, read in reads.items():
        with pytest.raises(UserError) as error:
            read()
        assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_kl_of_a_stream_that_has_run_out_is_nothing(tokens, direction):
    """Whatever its level: parts of a step are not equally many in every stream."""
    nothing = AnswerTokens.none(tokens.head, (3, 1))
    batch = Batch({"forget": nothing}, {("forget", "own"): Reference.none(tokens.head.weight)})
    assert batch.kl("forget", "own", direction).shape == (0,)


class Inner(Method):
    """Declares everything unlike the default, and notes what it is asked to do."""

    needs = {"forget": {"gold": "log_prob"}, "alternative": {}}
    layers = (0, -1)
    reads_answers = False
    images = "pets"
    k = 3
    strangers = "some/folder"
    stranger_count = 4
    strangers_per_step = 5
    rehearsal = True
    alternative = "own"
    noise = 0.3
    instruction = "Forget."
    gold = "gold/folder"
    in_passes = True
    whole_steps = True
    answers_only = True
    takes_steps = False
    copies = 2

    def __init__(self):
        self.called = []

    def loss(self, batch):
        return self.called.append(("loss", batch)) or {"loss": "a loss"}

    def logged(self, terms):
        return self.called.append(("logged", terms)) or {"logged": terms}

    def before_training(self, run):
        self.called.append(("before_training", run))

    def before_optimizer_step(self, model):
        self.called.append(("before_optimizer_step", model))

    def after_step(self, terms):
        self.called.append(("after_step", terms))

    def state_dict(self):
        return self.called.append(("state_dict",)) or {"state": 1}

    def load_state_dict(self, state):
        self.called.append(("load_state_dict", state))


def declarations(method):
    return {name: getattr(method, name) for name in Method.__annotations__}


def test_around_declares_what_is_inside():
    """All of it, also what a later version of Method adds."""
    plain = declarations(Method())
    inner = declarations(Inner())
    assert all(inner[name] != plain[name] for name in plain), "Inner declares something of its own everywhere"
    assert declarations(Around(Inner())) == inner
    assert Around(Inner()).references == {"gold"}
    assert declarations(Around(Around(Stranger()))) == declarations(Stranger())


def test_around_delegates_every_hook():
    inner, thing = Inner(), SimpleNamespace()
    around = Around(inner)
    assert around.loss(thing) == {"loss": "a loss"} and around.logged(thing) == {"logged": thing}
    around.before_training(thing)
    around.before_optimizer_step(thing)
    around.after_step(thing)
    assert around.state_dict() == {"state": 1}
    around.load_state_dict(thing)
    hooks = [name for name, found in vars(Method).items() if callable(found) and not name.startswith("_")]
    assert [one[0] for one in inner.called] == hooks, "in their order in Method, none left out"
    assert all(one[1] is thing for one in inner.called if len(one) > 1)
    assert {name for name in hooks if name not in vars(Around)} == set()


def test_held_delegates_what_it_does_not_do_itself():
    inner = type("Steps", (Inner,), {"in_passes": False, "whole_steps": False, "takes_steps": True})()
    held, thing = Held(inner), SimpleNamespace()
    held.before_training(thing)
    held.before_optimizer_step(thing)
    held.after_step({"loss": 1})
    assert held.state_dict() == {"own": {}, "method": {"state": 1}}
    held.load_state_dict({"own": {}, "method": {"state": 2}})
    assert held.logged({"loss": 1}) == {"logged": {"loss": 1}}
    assert [one[0] for one in inner.called] == [
        *("before_training", "before_optimizer_step", "after_step", "state_dict", "load_state_dict", "logged")
    ]
    assert inner.called[4][1] == {"state": 2}


def test_a_subclass_of_around_may_need_more(tokens):
    class More(Around):
        def __init__(self, method):
            super().__init__(method)
            self.needs = {**self.needs, "retain": {}}

        def loss(self, batch):
            return {"loss": self.method.loss(batch)["loss"] + batch.retain.mean(-batch.retain.log_probs)}

    method = More(GradientAscent())
    check_needs(method)
    assert GradientAscent.needs == {"forget": {}}
    loss = method.loss(Batch({"forget": tokens, "retain": tokens}))["loss"]
    torch.testing.assert_close(loss, torch.zeros(()))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("need", "Mine.need: no method declares that; did you mean 'needs'"),
        ("stranger_counts", "Mine.stranger_counts: no method declares that; did you mean 'stranger_count'"),
    ],
)
def test_a_class_that_declares_what_is_not_looked_at(attribute, message):
    with pytest.raises(UserError, match=message):
        check_needs(type("Mine", (Method,), {attribute: True})())
    check_needs(type("Mine", (Method,), {"temperature": 2.0, "helper": lambda self: 0})())


LOSS = torch.ones((), requires_grad=True)


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        (None, "found NoneType, expected"),
        ({"los": LOSS}, "found .'los'., expected"),
        ({"loss": LOSS.expand(3)}, r"'loss' is a tensor of shape \[3\], expected a tensor of one number"),
        ({"loss": 1.5}, "'loss' is 1.5, expected a tensor of one number"),
        ({"loss": LOSS, "note": "hello"}, "'note' is 'hello', expected a tensor of one number"),
        ({"loss": LOSS.detach()}, '"loss" has no gradient, so nothing would be trained'),
    ],
)
def test_what_a_loss_gives(terms, line):
    with pytest.raises(UserError, match=rf"^GradientAscent.loss: {line}"):
        check_terms(GradientAscent(), terms, True)
    check_terms(GradientAscent(), {"loss": LOSS, "note": LOSS.detach()}, True)
    check_terms(GradientAscent(), {"loss": LOSS.detach()}, False)  # a stream has run out
