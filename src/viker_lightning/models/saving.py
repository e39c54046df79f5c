"""Writing weights as PEFT and transformers do, safetensors only, also where processes share them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from .dtensor import gather

if TYPE_CHECKING:
    from .mllm import MLLM


def save_adapter(mllm: MLLM, folder: str | Path, write: bool = True) -> None:
    """Writes the adapter.

    Args:
        mllm: an adapted model.
        folder: where to.
        write: whether this process writes; processes that share the weights must all call this.
    """
    state = _whole_state(mllm, "lora_", ".modules_to_save.")
    if write:
        mllm.model.save_pretrained(str(folder), state_dict=state)


def save(mllm: MLLM, folder: str | Path, write: bool = True) -> None:
    """Writes full weights and processor.

    Args:
        mllm: the model.
        folder: where to.
        write: as for :func:`save_adapter`.

    Raises:
        RuntimeError: if there is an adapter, which must be merged first.
    """
    if mllm.adapted:
        raise RuntimeError("merge the adapter before saving full weights")
    state = _whole_state(mllm, "")
    if write:
        mllm.model.save_pretrained(str(folder), state_dict=state)
        mllm.processor.save_pretrained(str(folder))


def _whole_state(mllm: MLLM, *parts: str) -> dict[str, Tensor] | None:
    """Weights whose names hold one of ``parts``, put together by all processes; ``None`` if they are whole."""
    if mllm.lockstep is None:
        return None
    return {name: gather(w).cpu() for name, w in mllm.model.state_dict().items() if any(part in name for part in parts)}
