"""What every unlearning objective has in common."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from viker_lightning.errors import UserError
from viker_lightning.ideal import Reference
from viker_lightning.models import AnswerTokens


@dataclass
class Batch:
    """All a method sees of one step.

    Attributes:
        forget: the student's answer tokens on the forget set.
        retain: the same on the retain set, if the method asks for it.
        forget_reference: what the frozen model says of the forget tokens, if asked for.
        retain_reference: the same of the retain tokens.
        forget_distribution: the reference as full ``[T, V]`` probabilities, where it cannot be reduced.
    """

    forget: AnswerTokens
    retain: AnswerTokens | None = None
    forget_reference: Reference | None = None
    retain_reference: Reference | None = None
    forget_distribution: Tensor | None = None


class Method:
    """An unlearning objective: says what it needs, and turns answer tokens into a loss.

    Attributes:
        uses_retain: whether steps carry retain questions.
        reference: what the frozen model is asked about the forget tokens: ``none``, ``own`` (the same image) or
            ``irrelevant``.
        needs_vector: whether a reference is used for more than the log-probability of the answer.
        retain_reference: whether the frozen model is asked about the retain tokens.
        needs_distribution: whether full reference distributions are needed (reverse KL).
        images: kind or folder of irrelevant images, if ``reference`` is ``irrelevant``.
        k: how many of them, at most 1000.
        in_passes: whether forget and retain questions take turns, a whole pass each, instead of sharing every step.
        whole_steps: whether the loss is no sum over parts, so that a step must pass the model at once.
        gold: folder of a model trained on the retain set only, which is the frozen model asked about forget tokens in
            place of the vanilla model; ``None`` where none is.
        answers_only: whether the objective is defined on answers, so that under the published protocol, too, nothing
            else counts in its loss.
        refusals: if set, forget questions are answered with these instead of the truth.
    """

    uses_retain: bool = False
    reference: str = "none"
    needs_vector: bool = True
    retain_reference: bool = False
    needs_distribution: bool = False
    images: str = "scenes"
    k: int = 5
    in_passes: bool = False
    whole_steps: bool = False
    gold: str | None = None
    answers_only: bool = False
    refusals: tuple[str, ...] = ()

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

    def before_training(self, model: nn.Module) -> None:
        """Called once, before the first step; for methods that prepare masks or targets."""

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Called with the gradients of every optimizer step; for methods that shape gradients."""


def require_retain(batch: Batch) -> AnswerTokens:
    """The retain tokens of a step of a method that declared ``uses_retain``."""
    if batch.retain is None:
        raise UserError("this method needs retain questions, and the data gives none; add a retain split")
    return batch.retain


def require_reference(reference: Reference | None) -> Reference:
    """A reference the method declared a need for."""
    if reference is None:
        raise ValueError("this method needs the frozen reference; ask for it in the method's attributes")
    return reference
