"""What an attack is: a name, conditions that are carried out one after another, and what they got out of a model."""

import abc
from collections.abc import Sequence
from typing import ClassVar, Self

from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.evaluation import predict
from viker_lightning.models import MLLM

from .attempt import Attempt, Whose, attempts
from .material import Material
from .subject import Name, Subject


class Attack(abc.ABC):
    """One way to bring back what a model is said to have forgotten. Its settings are the fields of a dataclass.

    Attributes:
        name: as it is called on the command line.
        about: what it does, in one line.
        source: paper, or repository and line, of the protocol.
        conditions: what :meth:`parts` gives, where that depends on no setting.
        axis: what ``x`` of its attempts counts, e.g. ``steps``; empty if its conditions are points.
        clean: the series that is no attack: the same questions, asked of the model as it is.
        beside: series that stand beside an attack to be compared with it, and are none themselves.
        guessing: of these, the one that says, question by question, what guessing gives; empty if none does.
        says: whether a hit means that the model said a private span without being told it; a look inside does not.
        teaches: series that train on the very people who are asked about: what comes back there was taught.
        costly: whether it is carried out only where it is named.
        subjects: whom it is carried out on.
        needs: whom it loads beside the one it is carried out on (:meth:`~viker_lightning.attacks.Subject.other`); where
            one of them is not known, it is left out.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    source: ClassVar[str]
    conditions: ClassVar[tuple[str, ...]] = ()
    axis: ClassVar[str] = ""
    clean: ClassVar[str] = "as asked"
    beside: ClassVar[tuple[str, ...]] = ()
    guessing: ClassVar[str] = ""
    says: ClassVar[bool] = True
    teaches: ClassVar[tuple[str, ...]] = ()
    costly: ClassVar[bool] = False
    subjects: ClassVar[tuple[Name, ...]] = ("run", "gold", "vanilla")
    needs: ClassVar[tuple[Name, ...]] = ()

    @classmethod
    def quick(cls) -> Self:
        """The same with a small budget, for a first look; by default it has no other."""
        return cls()

    def parts(self) -> Sequence[str]:
        """What is carried out and kept one after another; a stopped attack goes on behind the last whole part."""
        return self.conditions

    @abc.abstractmethod
    def carry_out(self, part: str, subject: Subject, material: Material) -> list[Attempt]:
        """Carries out a part.

        Args:
            part: one of :meth:`parts`.
            subject: the model; every part loads it, or may leave it as it found it.
            material: whom it is about; ``material.retain`` is attacked like ``material.forget``.

        Returns:
            Attempts on both; one part has those of the series :attr:`clean`. A part that cannot be carried out on this
            subject gives none.

        Raises:
            UserError: if the machine or the data lack what it needs.
        """

    def attacks(self, series: str, x: float | None) -> bool:
        """Whether a condition is an attack, on people it does not teach; a curve's beginning at 0 is none."""
        return series not in (self.clean, *self.beside, *self.teaches) and not (x == 0 and self.axis)

    def numbers(self, found: Sequence[Attempt]) -> dict[str, float]:
        """Numbers of one condition beside the shares of hits, by name.

        By default ``chance``, the mean hit of :attr:`guessing` on the forget people, 0 to 1, where there is one.

        Args:
            found: attempts on one subject, of one condition, of :attr:`clean`, and of series of :attr:`beside` at the
                same point.
        """
        guessed = [one.hit for one in found if one.series == self.guessing and one.whose == "forget"]
        return {"chance": sum(guessed) / len(guessed)} if guessed else {}


def ask(
    mllm: MLLM, groups: Sequence[ImageGroup], series: str, x: float | None = None, whose: Whose | None = None
) -> list[Attempt]:
    """Asks open questions as they are, greedily, and reads how likely their private spans are.

    Args:
        mllm: the model; its mode is left as it was.
        groups: evaluation groups, with a split.
        series: the condition.
        x: where on a curve.
        whose: as :func:`~viker_lightning.attacks.attempt.attempts` has it.
    """
    return attempts(predict(mllm, groups), series, x, whose)


def check_packing(attack: str, *models: MLLM) -> None:
    """Makes sure that the questions on an image share it, for an attack that reads several models side by side.

    Raises:
        UserError: if a model reads every question by itself.
    """
    for mllm in models:
        if not mllm.packs:
            raise UserError(
                f"{attack}: {type(mllm.base).__name__} reads every question by itself, expected a model of a known "
                "family; leave this attack out"
            )
