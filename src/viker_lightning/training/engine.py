"""How a stage uses the machine."""

from dataclasses import dataclass
from typing import Literal

from viker_lightning.errors import UserError
from viker_lightning.models.mllm import MAX_SEQUENCE_TOKENS, MAX_TOKENS


@dataclass
class Engine:
    """How a stage uses the machine. Nothing here changes a result beyond rounding.

    Attributes:
        max_sequence_tokens: most tokens of one packed sequence; an image with more questions takes several.
        max_tokens: most tokens that pass the model together, the vision tower seeing the images among them at once; a
            step with more passes in parts, with the gradient of the whole step.
        gradient_checkpointing: keep only layer inputs for the backward pass.
        features: where features of frozen vision modules are kept: ``memory``, ``disk`` (shared by runs) or ``off``.
        references: where what the frozen model said is kept: ``disk`` (ideal distributions, shared by runs),
            ``memory`` or ``off``.
    """

    max_sequence_tokens: int = MAX_SEQUENCE_TOKENS
    max_tokens: int = MAX_TOKENS
    gradient_checkpointing: bool = False
    features: Literal["memory", "disk", "off"] = "memory"
    references: Literal["disk", "memory", "off"] = "disk"

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequence_tokens <= self.max_tokens:
            raise UserError(
                f"engine: max_sequence_tokens={self.max_sequence_tokens} must be at least 1 and at most "
                f"max_tokens={self.max_tokens}"
            )
