"""What a stage knows of its running step and of its run, for callbacks to read and add to."""

from dataclasses import dataclass, field, fields
from typing import Any, Self

from torch import Tensor


@dataclass
class StepState:
    """The running step.

    Attributes:
        questions: how many this process asks in it.
        shows_image: whether one of them has an image.
        logged: the values that are logged of it, by name.
        broken: which number of it is not as it must be, in words; ``None`` if all are. The stage stops at it in the
            end of the step, unless a callback has fixed it.
    """

    questions: int = 0
    shows_image: bool = False
    logged: dict[str, Tensor] = field(default_factory=dict)
    broken: str | None = None


@dataclass
class RunReport:
    """What ``results.json`` holds of a run besides scores; each field that is set is a key of it.

    Attributes:
        knowledge: what the model knew of the forget set before training; see
            :class:`~viker_lightning.evaluation.Knowledge`.
        key_tokens: how well key-token entropy tells private tokens from template tokens.
        strangers: how many answers the frozen model gave about strangers, and how many of them were dropped.
        key_token_example: one answer with the entropy of each token.
        stopped: at which step a run was stopped, why, and of which step its adapter is.
        selection: which evaluation's weights the run ended with.
    """

    knowledge: dict[str, Any] | None = None
    key_tokens: dict[str, Any] | None = None
    key_token_example: dict[str, Any] | None = None
    strangers: dict[str, Any] | None = None
    stopped: dict[str, Any] | None = None
    selection: dict[str, Any] | None = None

    @classmethod
    def from_checkpoint(cls, saved: dict[str, Any]) -> Self:
        """A report from a checkpoint."""
        return cls(**{one.name: saved.get(one.name) for one in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """What is set, by key."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
