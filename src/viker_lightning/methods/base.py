"""What every unlearning objective has in common: what it asks for, what it is shown, and when it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol, get_args

from torch import Tensor, nn

from viker_lightning.errors import UserError, short
from viker_lightning.ideal import Level, Reference, forward_kl, token_kl
from viker_lightning.models import MLLM, AnswerTokens

STREAMS = ("forget", "alternative", "strangers", "retain")
"""What a step may ask: the forget questions; the same with other answers; the same behind pictures of strangers, with
the forget answers or with the frozen model's own; and retain questions."""

REFERENCES = ("own", "irrelevant", "gold", "noised")
"""Whom a method may ask about a stream's answers: the frozen model behind the same image, behind irrelevant images (the
ideal distribution), a model trained on the retain set, and the frozen model behind the same image noised or under an
instruction."""

Needs = Mapping[str, Mapping[str, Level]]
"""Streams, and for each the references that are asked about its answers, with how much of what they say is used."""


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
                f"this method reads what {name} says of {stream}, but does not declare it; add "
                f'"{stream}": {{"{name}": "kl"}} to its needs'
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
            raise UserError(f'the {direction} KL on {stream} needs "{name}": "{wanted}" in the method\'s needs')
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
            raise UserError("irrelevant has no hidden states: it is a mean over images; use own, gold or noised")
        return self.reference(stream, reference).layers[:, list(seen).index(layer)]


class Preparation(Protocol):
    """What a method may use before the first step; see :class:`~viker_lightning.training.preparation.Prepare`."""

    mllm: MLLM
    resumed: bool

    def passes(self, stream: str, title: str, once: bool = False) -> Iterator[AnswerTokens]:
        """Answer tokens of all questions of a stream, behind every photo or once, part by part, with a progress bar."""

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over processes."""


class Method:
    """An unlearning objective: says what it needs, and turns answer tokens into a loss.

    Attributes:
        needs: the streams of a step, and the references asked about each, with how much is used of what they say:
            ``log_prob`` (of the answer tokens alone, the cheapest), ``kl`` (what a forward KL needs) or ``full`` (every
            probability, computed in every step).
        layers: decoder layers whose hidden states are read, of the student in every stream and of the references
            ``own``, ``gold`` and ``noised``; negative ones count from the last.
        reads_answers: false if the loss reads hidden states of ``layers`` only, so that gradients end there.
        images: kind or folder of irrelevant images.
        k: how many of them, at most 1000.
        strangers: kind or folder of the strangers' pictures.
        stranger_count: how many of them, at most 1000.
        strangers_per_step: how many of them a step shows; groups that share one share its sequence.
        rehearsal: whether strangers come with the frozen model's own answers in place of the forget answers.
        alternative: what the forget questions are answered with in ``alternative``: sentences, one of which is drawn by
            the question's text; ``wrong`` (a wrong answer of the benchmark, or another person's); or ``own`` (what the
            frozen model says behind a stranger).
        noise: of the image that ``noised`` is shown, standard deviation of Gaussian noise, 0 to 1 of the range of
            pixels.
        instruction: what stands before the question that ``noised`` is asked.
        gold: folder of a model trained on the retain set only, for ``gold``.
        in_passes: whether forget and retain questions take turns, a whole pass each, instead of sharing every step.
        whole_steps: whether the loss is no sum over parts, so that a step must pass the model at once.
        answers_only: whether the objective is defined on answers, so that under the published protocol, too, nothing
            else counts in its loss.
        takes_steps: false if :meth:`before_training` edits the weights and no step follows.
        copies: numbers a trained weight that it holds at most beside the gradient and the two that AdamW keeps, so that
            ``check`` can say what a run takes.
    """

    needs: Needs = {"forget": {}}
    layers: tuple[int, ...] = ()
    reads_answers: bool = True
    images: str = "scenes"
    k: int = 5
    strangers: str = "people"
    stranger_count: int = 20
    strangers_per_step: int = 4
    rehearsal: bool = False
    alternative: tuple[str, ...] | str = ()
    noise: float = 0.0
    instruction: str = ""
    gold: str | None = None
    in_passes: bool = False
    whole_steps: bool = False
    answers_only: bool = False
    takes_steps: bool = True
    copies: int = 0

    @property
    def references(self) -> set[str]:
        """Names of all references it asks."""
        return {name for asked in self.needs.values() for name in asked}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the loss of a step, or of a part of it.

        A step may pass the model in parts, so every value must be a sum over parts: take means with
        :meth:`~viker_lightning.models.AnswerTokens.mean`, which divides by the tokens or questions of the whole step.

        Returns:
            ``loss`` (a scalar to be minimised) and any other scalars worth logging.
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
        raise UserError(f'this method reads {stream}, but declares {there}; add "{stream}": {{}} to its needs')


def check_needs(method: Method) -> None:
    """Makes sure that what a method declares can be given to it.

    Raises:
        UserError: if a name is misspelt, or two declarations contradict each other.
    """
    name, needs = type(method).__name__, method.needs
    _check_attributes(type(method))
    _check_mapping(f"{name}.needs", needs, 'streams, such as {"forget": {"irrelevant": "kl"}}')
    for stream, asked in needs.items():
        _check_name(f"{name}.needs", stream, STREAMS)
        _check_mapping(f"{name}.needs[{stream!r}]", asked, 'references with levels, such as {"own": "kl"}, or {}')
        for reference, level in asked.items():
            _check_name(f"{name}.needs[{stream!r}]", reference, REFERENCES)
            _check_name(f"{name}.needs[{stream!r}][{reference!r}]", level, get_args(Level))
    if method.takes_steps and not needs:
        raise UserError(f"{name}.needs: found no stream, expected one of {', '.join(STREAMS)}; declare what steps ask")
    missing = {
        "gold: needs a model to ask, found none; set it to the folder of a gold run": (
            "gold" in method.references and method.gold is None
        ),
        "alternative: needs other answers, found none; give sentences, wrong or own": (
            "alternative" in needs and not method.alternative
        ),
        "noise, instruction: noised is asked the same as own; set one of them": (
            "noised" in method.references and method.noise <= 0 and not method.instruction
        ),
        "reads_answers: is false, but no layers are declared; name some": not (method.reads_answers or method.layers),
        "in_passes: goes with forget and retain, no more and no less; change needs": (
            method.in_passes and set(needs) != {"forget", "retain"}
        ),
        f"layers: found {method.layers!r}, expected numbers of decoder layers": (
            not all(isinstance(layer, int) for layer in method.layers)
        ),
        f"noise: found {method.noise}, expected 0 to 1": not 0 <= method.noise <= 1,
        "strangers: found 'forget', but the people to be forgotten are no strangers; use people or a folder": (
            "strangers" in needs and method.strangers == "forget"
        ),
        f"k: found {method.k}, expected at least 1 image": "irrelevant" in method.references and method.k < 1,
        f"stranger_count, strangers_per_step: found {method.stranger_count} and {method.strangers_per_step}, expected "
        "at least 1": "strangers" in needs and min(method.stranger_count, method.strangers_per_step) < 1,
    }
    for message, wrong in missing.items():
        if wrong:
            raise UserError(f"{name}.{message}")
    if isinstance(method.alternative, str) and method.alternative:
        _check_name(f"{name}.alternative", method.alternative, ("wrong", "own"))


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
    """Makes sure that no attribute of a class is one of :class:`Method`, misspelt."""
    known = [*Method.__annotations__, *vars(Method)]
    for name in [name for one in kind.__mro__ if one not in (*Method.__mro__,) for name in vars(one)]:
        near = get_close_matches(name, known, 1, 0.85)
        if not name.startswith("_") and name not in known and near:
            raise UserError(f"{kind.__name__}.{name}: no method declares that; did you mean {near[0]!r}?")


def _check_mapping(where: str, found: object, expected: str) -> None:
    if not isinstance(found, Mapping):
        raise UserError(f"{where}: found {found!r}, expected {expected}")


def _check_name(where: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        near = get_close_matches(found, expected, 1)
        remedy = f"did you mean {near[0]!r}?" if near else "use one of these"
        raise UserError(f"{where}: found {found!r}, expected one of {', '.join(expected)}; {remedy}")
