"""How a stage uses the machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from torch import Tensor

from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, split_to_budget
from viker_lightning.models.mllm import MAX_SEQUENCE_TOKENS, MAX_TOKENS

Groups = dict[str, list[ImageGroup]]
log = logging.getLogger(__name__)


def warn_of_small_steps(trained: Iterable[Tensor]) -> None:
    """Warns if weights are trained in a type in which small steps vanish: bf16 keeps 8 bits, so none below 1/256."""
    kinds = {str(p.dtype).removeprefix("torch.") for p in trained} & {"bfloat16", "float16"}
    if kinds:
        log.warning(
            "trained weights are %s, in which small steps are rounded away: train LoRA, or keep them in float32 "
            "(model.dtype=float32, trainer.precision=bf16-mixed)",
            " and ".join(sorted(kinds)),
        )


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

    def check_kept(self, why_full: str | None) -> None:
        """Makes sure that a model trained in full need not be asked again what it said at first.

        Args:
            why_full: why full distributions must be taken from it in every step, if they must.

        Raises:
            UserError: if it would have to be.
        """
        way = "which LoRA makes possible; set model.lora, or a method or setting without that need"
        if self.references == "off":
            raise UserError(f"model.engine.references=off asks the original model in every step, {way}")
        if why_full:
            raise UserError(f"model.lora=null: {why_full}, so the original model is asked in every step, {way}")


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
    streams = [split_to_budget(mllm, found, most) for found in groups.values()]
    parts = [dict(zip(groups, part, strict=True)) for part in zip_longest(*streams, fillvalue=[])]
    if whole and len(parts) > 1:
        raise UserError(
            f"this objective has no parts, but the step has {len(parts)}; raise model.engine.max_tokens and "
            "max_sequence_tokens, or lower data.batch_size and trainer.accumulate_grad_batches"
        )
    return parts
