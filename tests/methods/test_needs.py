"""What methods declare: mistakes are one line, what is not declared cannot be read, wrappers declare the same."""

from types import SimpleNamespace

import pytest
import torch

from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference
from viker_lightning.methods import Alternative, Around, Batch, Forget, Gold, GradientAscent, Held, Method, Stranger
from viker_lightning.methods.base import Irrelevant, Noised, Retain, Strangers, check_needs, check_terms
from viker_lightning.models import AnswerTokens


def declaring(**declared):
    return type("Mine", (Method,), declared)()


FINE = [
    {},
    {"needs": (Forget(irrelevant=Irrelevant("pets", k=9), own="log_prob"), Retain(own="full"))},
    {"needs": [Forget(gold=Gold("some/folder"))]},
    {"needs": (Forget(noised=Noised(0.2)), Retain(noised=Noised(0.2, level="full")))},
    {"needs": (Forget(noised=Noised(instruction="You do not know anybody.")),)},
    {"needs": (Alternative(("I do not know.",)),)},
    {"needs": (Alternative("wrong", own="kl"), Strangers(rehearsal=True))},
    {"needs": (Alternative(Strangers("some/folder", 3)),)},
    {"needs": (Forget(), Retain()), "in_passes": True},
    {"needs": (), "takes_steps": False},
    {"reads_answers": False, "layers": (-1,)},
]


@pytest.mark.parametrize("declared", FINE, ids=str)
def test_what_can_be_given(declared):
    check_needs(declaring(**declared))


WRONG = {
    "a level": (lambda: Strangers(own="KL"), "Strangers.own: found 'KL', expected level log_prob, kl or full"),
    "a reference's level": (
        lambda: Forget(gold=Gold("x", "KL")),
        r"Forget.gold: found Gold\(.*, expected Gold\(...\) with",
    ),
    "a level alone": (
        lambda: Forget(irrelevant="kl"),
        r"Forget.irrelevant: found 'kl', expected Irrelevant\(...\) with level",
    ),
    "no sentence": (
        lambda: Alternative(()),
        r"Alternative.answers: found \(\), expected sentences, wrong or Strangers",
    ),
    "an alternative": (
        lambda: Alternative("wrnog"),
        "Alternative.answers: found 'wrnog', expected sentences, wrong or",
    ),
    "not noised": (
        lambda: Noised(),
        "Noised.noise: found 0.0, expected 0 to 1, and above 0",
    ),
    "much noise": (lambda: Noised(3.0), "Noised.noise: found 3.0, expected 0 to 1"),
    "forgotten strangers": (lambda: Strangers("forget"), "Strangers.pictures: found 'forget', who are no strangers"),
    "no images": (lambda: Irrelevant(k=0), "Irrelevant.k: found 0, expected at least 1"),
    "no strangers": (lambda: Strangers(count=0), "Strangers.count: found 0, expected at least 1"),
    "none a step": (lambda: Strangers(per_step=0), "Strangers.per_step: found 0, expected at least 1"),
    "no stream": ({"needs": ()}, "Mine.needs: found no stream; say what a step asks"),
    "a stream twice": ({"needs": (Forget(), Forget(own="kl"))}, "Mine.needs: found a stream twice"),
    "two kinds of images": (
        {"needs": (Forget(irrelevant=Irrelevant()), Retain(irrelevant=Irrelevant("pets")))},
        "Mine.needs: streams differ in irrelevant; say the same in all",
    ),
    "two kinds of strangers": (
        {"needs": (Strangers(), Alternative(Strangers(count=3)))},
        "Mine.needs: streams differ in whom they show as strangers",
    ),
    "no layers": ({"reads_answers": False}, "Mine.reads_answers: is false, but no layers are declared"),
    "passes": (
        {"needs": (Forget(), Strangers()), "in_passes": True},
        "Mine.in_passes: goes with forget and retain alone",
    ),
    "passes of one stream": ({"needs": (Forget(),), "in_passes": True}, "Mine.in_passes: goes with forget and retain"),
    "a layer's name": ({"layers": ("x",)}, r"Mine.layers: found \('x',\), expected numbers of layers"),
    "no comma": ({"needs": Forget()}, r"Mine.needs: found Forget\(.*, expected streams, as in \(Forget\("),
    "names": ({"needs": ("forget", "retain")}, r"Mine.needs: found \('forget', 'retain'\), expected streams, as in"),
    "as it was": (
        {"needs": {"forget": {"own": "kl"}}},
        "Mine.needs: found {'forget': {'own': 'kl'}}, expected streams",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_is_one_line(case):
    declared, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        check_needs(declaring(**declared)) if isinstance(declared, dict) else declared()
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
        "reads strangers, but declares forget; add Strangers() to its needs": lambda: batch.strangers,
        "reads retain, but declares forget; add Retain() to its needs": lambda: batch.retain,
        "reads alternative, but declares forget; add Alternative() to its needs": lambda: batch.alternative,
        "reads what irrelevant says of forget, but does not declare it; add irrelevant to Forget(...) in its needs": (
            lambda: batch.reference("forget", "irrelevant")
        ),
        "reads what own says of strangers, but does not declare it; add own to Strangers(...) in its needs": (
            lambda: batch.kl("strangers", "own")
        ),
        'the forward KL on forget takes the level "kl" of gold': lambda: batch.kl("forget", "gold"),
        'the reverse KL on forget takes the level "full" of own': lambda: batch.kl("forget", "own", "reverse"),
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

    needs = (Forget(gold=Gold("gold/folder", "log_prob")), Alternative(Strangers("some/folder", 4)))
    layers = (0, -1)
    reads_answers = False
    in_passes = True
    whole_steps = True
    answers_only = True
    shapes_gradients = True
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
    assert Around(Inner()).references == {"gold": Gold("gold/folder", "log_prob")}
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
            self.needs = (*self.needs, Retain())

        def loss(self, batch):
            return {"loss": self.method.loss(batch)["loss"] + batch.retain.mean(-batch.retain.log_probs)}

    method = More(GradientAscent())
    check_needs(method)
    assert GradientAscent.needs == (Forget(),)
    loss = method.loss(Batch({"forget": tokens, "retain": tokens}))["loss"]
    torch.testing.assert_close(loss, torch.zeros(()))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("need", "Mine.need: no method declares that; did you mean 'needs'"),
        ("whole_step", "Mine.whole_step: no method declares that; did you mean 'whole_steps'"),
        ("uses_retain", r"Mine.uses_retain: is not looked at any more; say it by Retain\(...\) in needs"),
        (
            "strangers_per_step",
            r"Mine.strangers_per_step: is not looked at any more; say it by Strangers\(...\) in needs",
        ),
        ("k", r"Mine.k: is not looked at any more; say it by Irrelevant\(...\) in needs, see docs/method.md"),
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


@pytest.mark.parametrize("around", [Around, Held])
def test_a_method_inside_is_named_where_its_needs_are_wrong(around):
    inside = type("Mine", (GradientAscent,), {"needs": {"forget": {"own": "kl"}}})()
    with pytest.raises(UserError, match=r"Mine.needs: found .*expected streams"):
        around(inside)


def test_a_stream_of_ones_own_is_none():
    mine = type("Mine", (Forget,), {})
    with pytest.raises(UserError, match="expected streams"):
        check_needs(type("Own", (Method,), {"needs": (mine(),)})())


def test_sentences_may_be_a_list():
    assert Alternative(["No.", "Who?"]).answers == ("No.", "Who?")
