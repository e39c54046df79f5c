"""What every unlearning objective has in common: what it asks for, what it is shown, and when it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, Protocol, get_args

from torch import Tensor, nn

from viker_lightning.errors import UserError, check_least, short
from viker_lightning.ideal import Double, Level, Noised, Reference, forward_kl, token_kl
from viker_lightning.models import MLLM, AnswerTokens

REPLACED = {
    "Irrelevant": ("images", "k"),
    "Strangers": ("strangers", "stranger_count", "strangers_per_step", "rehearsal"),
    "Alternative": ("alternative",),
    "Noised": ("noise", "instruction"),
    "Gold": ("gold",),
    "Retain": ("uses_retain", "retain_reference"),
    "Forget": ("needs_vector", "needs_distribution"),
}
"""What says in ``needs`` what methods declared by attributes before."""


@dataclass(frozen=True)
class Irrelevant:
    """The ideal distribution: the frozen model behind irrelevant images, at most 1000, of a kind or from a folder."""

    images: str = "scenes"
    k: int = 5
    level: Level = "kl"

    def __post_init__(self) -> None:
        check_least("Irrelevant", 1, k=self.k)


@dataclass(frozen=True)
class Gold:
    """A model trained on the retain set only, by its folder."""

    folder: str
    level: Level = "kl"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Questions of a step, and whom a method asks about their answers, each at a :data:`~viker_lightning.ideal.Level`.

    Attributes:
        own: the frozen model behind the same image, by its level.
        irrelevant: the frozen model behind irrelevant images.
        gold: a model trained on the retain set only.
        noised: the frozen model behind the same image noised, or under an instruction.
        double: the frozen model behind strangers that stand for the person, the same in all steps.
    """

    own: Level | None = None
    irrelevant: Irrelevant | None = None
    gold: Gold | None = None
    noised: Noised | None = None
    double: Double | None = None

    def __post_init__(self) -> None:
        for name, level in self.levels.items():
            need, kind = getattr(self, name), "" if name == "own" else f"{name.title()}(...) with "
            if isinstance(need, str) == bool(kind) or level not in get_args(Level):
                where = f"{type(self).__name__}.{name}"
                raise UserError(f"{where}: found {short(need)}, expected {kind}level log_prob, kl or full")

    @property
    def levels(self) -> dict[str, Level]:
        """Levels of the references it asks, by name."""
        asked = {one.name: getattr(self, one.name) for one in fields(Stream)}
        return {name: getattr(need, "level", need) for name, need in asked.items() if need is not None}


class Forget(Stream):
    """The forget questions with their true answers."""


class Retain(Stream):
    """The retain questions."""


@dataclass(frozen=True)
class Strangers(Stream):
    """The forget questions on photos, asked about strangers instead; without photo, too, where doubles have names.

    Attributes:
        pictures: ``people`` (drawn) or a folder of portraits.
        count: how many of them, at most 1000.
        per_step: how many of them a step shows; groups that share one share its sequence.
        rehearsal: whether they come with the frozen model's own answers in place of the forget answers.
    """

    pictures: str = "people"
    count: int = 20
    per_step: int = 4
    rehearsal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("Strangers", 1, count=self.count, per_step=self.per_step)
        if self.double is not None:
            raise UserError("Strangers.double: strangers have no doubles; ask for it in Forget(...)")
        if self.pictures == "forget":
            raise UserError("Strangers.pictures: found 'forget', who are no strangers; use people or a folder")


@dataclass(frozen=True)
class Alternative(Stream):
    """The forget questions with other answers: the truth, where the data correct an answer.

    Attributes:
        answers: sentences, one of which is drawn by the question's text; ``wrong`` (a wrong answer of the benchmark, or
            another person's); or strangers, behind whom the frozen model answers.
    """

    answers: tuple[str, ...] | Literal["wrong"] | Strangers

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.answers, list):
            object.__setattr__(self, "answers", tuple(self.answers))
        if not self.answers or (isinstance(self.answers, str) and self.answers != "wrong"):
            raise UserError(f"Alternative.answers: found {self.answers!r}, expected sentences, wrong or Strangers(...)")


Needs = tuple[Stream, ...]

STREAMS = (Forget, Alternative, Strangers, Retain)


@dataclass
class Batch:
    """All a method sees of one step, or of a part of one; ``batch.forget`` and so on are its streams.

    Attributes:
        tokens: the student's answer tokens, by stream.
        references: what is said of them, by stream and name of the reference.
        distributions: the same in full, ``[T, V]`` probabilities, where it was asked for or cannot be reduced.
        step: how many steps have been taken before.
        again: passes the questions of a stream of this part once more, with the weights as they are then; to be called
            before the step has ended. A stream that is not declared, and sharded weights, are a UserError.
    """

    tokens: Mapping[str, AnswerTokens]
    references: Mapping[tuple[str, str], Reference] = field(default_factory=dict)
    distributions: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)
    step: int = 0
    again: Callable[[str], AnswerTokens] | None = None

    def __getitem__(self, stream: str) -> AnswerTokens:
        """The student's answer tokens of a stream.

        Raises:
            UserError: if the method has not declared it.
        """
        check_declared(stream, self.tokens)
        return self.tokens[stream]

    @property
    def forget(self) -> AnswerTokens:
        """The forget questions with their true answers."""
        return self["forget"]

    @property
    def alternative(self) -> AnswerTokens:
        """The forget questions with other answers."""
        return self["alternative"]

    @property
    def strangers(self) -> AnswerTokens:
        """Questions of the forget set, asked about strangers."""
        return self["strangers"]

    @property
    def retain(self) -> AnswerTokens:
        """The retain questions."""
        return self["retain"]

    def reference(self, stream: str, name: str) -> Reference:
        """What a reference says of a stream's answers, token by token.

        Raises:
            UserError: if the method has not declared it.
        """
        if (stream, name) not in self.references:
            raise UserError(
                f"this method reads what {name} says of {stream}, but does not declare it; add {name} to "
                f"{stream.title()}(...) in its needs"
            )
        return self.references[stream, name]

    def kl(self, stream: str, name: str, direction: str = "forward") -> Tensor:
        """KL of a reference and the student, token by token.

        Args:
            stream: of which answers.
            name: of the reference, declared with ``kl`` or ``full``.
            direction: ``forward`` is KL(reference || student); ``reverse`` needs ``full``.

        Returns:
            ``[T]`` nats, >= 0 up to rounding.
        """
        reference, tokens = self.reference(stream, name), self[stream]
        if (stream, name) in self.distributions:
            return token_kl(self.distributions[stream, name], tokens.logits, direction)
        if not len(tokens.labels):  # the stream has run out in this part of the step
            return tokens.log_probs
        if direction != "forward" or not reference.vector.shape[1]:
            wanted = "kl" if direction == "forward" else "full"
            raise UserError(
                f'the {direction} KL on {stream} takes the level "{wanted}" of {name} in the method\'s needs'
            )
        return forward_kl(reference, tokens)

    def hidden(self, stream: str, layer: int, reference: str | None = None) -> Tensor:
        """Hidden states behind a decoder layer, at the positions that predict the answer tokens.

        Args:
            stream: of which answers.
            layer: one of the method's ``layers``.
            reference: whose; ``None`` is the student's, with gradient.

        Returns:
            ``[T, d]``.
        """
        seen = self[stream].layers
        if layer not in seen:
            raise UserError(f"this method reads layer {layer}, but declares {list(seen)}; add it to its layers")
        if reference is None:
            return seen[layer]
        if reference == "irrelevant":
            raise UserError(
                "irrelevant has no hidden states: it is a mean over images; use own, double, gold or noised"
            )
        return self.reference(stream, reference).layers[:, list(seen).index(layer)]


class Preparation(Protocol):
    """What a method may use before the first step; see :class:`~viker_lightning.training.preparation.Prepare`."""

    mllm: MLLM
    resumed: bool
    forget_names: Callable[[], list[str]]

    def passes(self, stream: str, title: str, once: bool = False) -> Iterator[AnswerTokens]:
        """Answer tokens of all questions of a stream, behind every photo or once, part by part, with a progress bar."""

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over processes."""


class Method:
    """An unlearning objective: says what it needs, and turns answer tokens into a loss.

    Attributes:
        needs: the streams of a step, and whom it asks about the answers of each.
        layers: decoder layers whose hidden states are read, of the student in every stream and of the references
            ``own``, ``double``, ``gold`` and ``noised``; negative ones count from the last.
        reads_answers: false if the loss reads hidden states of ``layers`` only, so that gradients end there.
        in_passes: whether forget and retain questions take turns, a whole pass each, instead of sharing every step.
        whole_steps: whether the loss is no sum over parts, so that a step must pass the model at once.
        answers_only: whether the objective is defined on answers, so that under the published protocol, too, nothing
            else counts in its loss.
        shapes_gradients: whether it puts a gradient of its own in the place of the loss's.
        takes_steps: false if :meth:`before_training` edits the weights and no step follows.
        copies: numbers a trained weight that it holds at most beside the gradient and the two that AdamW keeps, so that
            ``check`` can say what a run takes.
    """

    needs: Needs = (Forget(),)
    layers: tuple[int, ...] = ()
    reads_answers: bool = True
    in_passes: bool = False
    whole_steps: bool = False
    answers_only: bool = False
    shapes_gradients: bool = False
    takes_steps: bool = True
    copies: int = 0

    @property
    def streams(self) -> dict[str, Stream]:
        """What it needs, by the name of the stream."""
        return {type(stream).__name__.lower(): stream for stream in self.needs}

    @property
    def references(self) -> dict[str, Any]:
        """All references it asks, by name."""
        return {name: getattr(stream, name) for stream in self.needs for name in stream.levels}

    @property
    def other_answers(self) -> tuple[str, ...] | Literal["wrong"] | Strangers:
        """Where other answers to forget questions come from; no sentences if it asks for none."""
        return next((need.answers for need in self.needs if isinstance(need, Alternative)), ())

    @property
    def strangers_shown(self) -> list[Strangers]:
        """The strangers that it asks about, or behind whom the frozen model answers."""
        shown = [need.answers if isinstance(need, Alternative) else need for need in self.needs]
        return [need for need in shown if isinstance(need, Strangers)]

    @property
    def pictures_needed(self) -> dict[str, tuple[str, int]]:
        """Kind or folder, and number, of the images that it asks about: ``irrelevant``, ``strangers``, ``double``."""
        irrelevant, double = self.references.get("irrelevant"), self.references.get("double")
        needed = {"irrelevant": (irrelevant.images, irrelevant.k)} if irrelevant else {}
        needed |= {"double": (double.pictures, double.count)} if double else {}
        for strangers in self.strangers_shown:
            needed["strangers"] = (strangers.pictures, strangers.count)
        return needed

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the loss of a step, or of a part of it.

        A step may pass the model in parts, so every value must be a sum over parts: take means with
        :meth:`~viker_lightning.models.AnswerTokens.mean`, which divides by the tokens or questions of the whole step.

        Returns:
            ``loss`` (a scalar to be minimised) and any other scalars worth logging, which need not be detached. The
            first word of a name, up to its underscore, is the stream that a scalar is of, if it is of one
            (``retain_kl``): where streams take turns, it is logged only in the steps that ask that stream.
        """
        raise NotImplementedError

    def logged(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns the summed terms of a step into the values that are logged."""
        return terms

    def before_training(self, run: Preparation) -> None:
        """Called before the first step: for what is learned from model and data, or for an edit of the weights.

        What frozen models are known to say has been asked by then. A resumed run calls it again with ``run.resumed``
        true, from weights that have moved, and then :meth:`load_state_dict`; an edit without steps is not made twice.
        """

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Called with the gradients of every optimizer step; for methods that shape gradients."""

    def after_step(self, terms: dict[str, Tensor]) -> None:
        """Called after every optimizer step with what was logged of it, means over all processes.

        For weights that follow the loss, such as dual ones; :meth:`state_dict` is what a resumed run finds again.
        """

    def state_dict(self) -> dict[str, Any]:
        """What changes while training: tensors and plain values, kept in every checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what :meth:`state_dict` gave."""


def check_declared(stream: str, declared: Iterable[str]) -> None:
    """Makes sure that a stream that a method reads is one that it declares.

    Raises:
        UserError: naming those it declares, and what to add.
    """
    if stream not in declared:
        there = ", ".join(declared)
        raise UserError(f"this method reads {stream}, but declares {there}; add {stream.title()}() to its needs")


def check_doubles(method: str, doubles: int | None, k: int, names: str | None) -> None:
    """Makes sure that a person can have so many doubles, and that names are given to some.

    Raises:
        UserError: naming the options of the method.
    """
    if doubles is not None and not 1 <= doubles <= k:
        raise UserError(f"{method}: doubles={doubles} must be 1 to k={k}, or null for the mean over all")
    if names is not None and doubles is None:
        raise UserError(f"{method}: names={names} are of doubles, found none; set doubles, or drop names")


def check_needs(method: Method) -> None:
    """Makes sure that what a method declares can be given to it.

    Raises:
        UserError: if a name is misspelt, or two declarations contradict each other.
    """
    check_streams(method)
    name, needs = type(method).__name__, method.needs
    for need in needs:
        for reference, level in need.levels.items():
            first = method.references[reference]
            if reference != "own" and replace(first, level=level) != getattr(need, reference):
                raise UserError(f"{name}.needs: streams differ in {reference}; say the same in all, but for the level")
    people = {(one.pictures, one.count, one.per_step) for one in method.strangers_shown}
    streams, turns, layers = method.streams, {"forget", "retain"}, method.layers
    wrong = {
        "needs: streams differ in whom they show as strangers; say the same in all": len(people) > 1,
        "needs: found a stream twice; say in one what is asked of it": len(streams) < len(needs),
        "needs: found no stream; say what a step asks, as in (Forget(),)": method.takes_steps and not needs,
        "reads_answers: is false, but no layers are declared; name some": not (method.reads_answers or layers),
        "in_passes: goes with forget and retain alone; change needs": method.in_passes and streams.keys() != turns,
        "needs: the mean over doubles has no hidden states; leave layers out, or set each=1": bool(
            layers and "double" in method.references and method.references["double"].each > 1
        ),
        f"layers: found {layers!r}, expected numbers of layers": not all(isinstance(layer, int) for layer in layers),
    }
    for message, there in wrong.items():
        if there:
            raise UserError(f"{name}.{message}")


def check_streams(method: Method) -> None:
    """Makes sure that a method declares streams, and nothing that is misspelt or of an earlier version.

    Raises:
        UserError: naming the method, and what to write.
    """
    name, needs = type(method).__name__, method.needs
    _check_attributes(type(method))
    if not isinstance(needs, tuple | list) or not all(type(need) in STREAMS for need in needs):
        raise UserError(f'{name}.needs: found {short(needs)}, expected streams, as in (Forget(own="kl"), Retain())')


def check_terms(method: Method, terms: Any, whole: bool) -> None:
    """Makes sure that what a method's loss gave can be minimised and logged.

    Args:
        method: the method.
        terms: what it gave.
        whole: whether every stream had questions, so that something has to be trained.

    Raises:
        UserError: naming method and term.
    """
    name = f"{type(method).__name__}.loss"
    if not isinstance(terms, Mapping) or "loss" not in terms:
        found = [*terms] if isinstance(terms, Mapping) else type(terms).__name__
        raise UserError(f'{name}: found {found}, expected {{"loss": ...}}; return a dict with the key "loss"')
    for key, value in terms.items():
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.numel() == 1):
            found = f"a tensor of shape {[*value.shape]}" if isinstance(value, Tensor) else short(value)
            raise UserError(
                f"{name}: {short(key)} is {found}, expected a tensor of one number; take its mean, or drop it"
            )
    if whole and not terms["loss"].requires_grad:
        raise UserError(
            f'{name}: "loss" has no gradient, so nothing would be trained; take it from what the batch holds'
        )


def _check_attributes(kind: type[Method]) -> None:
    """Makes sure that no attribute of a class is one of :class:`Method` misspelt, or one of an earlier version."""
    known = [*Method.__annotations__, *vars(Method)]
    for name in [name for one in kind.__mro__ if one not in (*Method.__mro__,) for name in vars(one)]:
        near = get_close_matches(name, known, 1, 0.85)
        for need in [need for need, names in REPLACED.items() if name in names]:
            raise UserError(
                f"{kind.__name__}.{name}: is not looked at any more; say it by {need}(...) in needs, see docs/method.md"
            )
        if not name.startswith("_") and name not in known and near:
            raise UserError(f"{kind.__name__}.{name}: no method declares that; did you mean {near[0]!r}?")
