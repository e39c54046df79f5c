"""How a stage uses the machine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, fitted
from viker_lightning.models.mllm import MAX_SEQUENCE_TOKENS, MAX_TOKENS

Groups = dict[str, list[ImageGroup]]


@dataclass
class Engine:
    """How a stage uses the machine. Nothing here changes a result beyond rounding.

    Attributes:
        max_sequence_tokens: most tokens of one packed sequence; an image with more questions takes several.
        max_tokens: most tokens that pass the model together; a step with more passes in parts, with the gradient of
            the whole step.
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


def parts_of(mllm: MLLM, groups: Groups, most: int | None, whole: bool) -> list[Groups]:
    """A step in as many parts as the model's token budgets ask for; a stream that runs out is empty.

    Args:
        mllm: the model.
        groups: image groups by stream.
        most: most questions in a part of a stream; ``None`` is all.
        whole: whether the loss is no sum over parts.

    Raises:
        UserError: if a step that must be whole needs several parts.
    """
    streams = [fitted(mllm, found, most) for found in groups.values()]
    parts = [dict(zip(groups, part, strict=True)) for part in zip_longest(*streams, fillvalue=[])]
    if whole and len(parts) > 1:
        raise UserError(
            f"this objective has no parts, but the step has {len(parts)}; raise model.engine.max_tokens and "
            "max_sequence_tokens, or lower data.batch_size and trainer.accumulate_grad_batches"
        )
    return parts
