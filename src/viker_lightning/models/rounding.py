"""How much of an adapter's change is left in merged weights that are rounded, and who is told."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor

log = logging.getLogger(__name__)

ENOUGH = 0.95
"""Least share of an adapter's change that merged weights keep without a warning."""

SHARES = "share_kept.txt"
"""Beside merged weights: a line for each smaller type, with the share that it keeps."""

SMALLER = ("bfloat16", "float16")


def note_shares(model: Any, folder: Path) -> None:
    """Writes how much of the change of an adapter, not merged yet, smaller types keep, beside its merged weights."""
    lines = [f"{kind} {share_kept(model, getattr(torch, kind))}\n" for kind in SMALLER]
    (folder / SHARES).write_text("".join(lines), "utf-8")


def warn_of_rounding(source: str | Path, dtype: str) -> None:
    """Warns if merged weights are loaded in a type that rounds some of the change away; others are not looked at."""
    with contextlib.suppress(OSError, ValueError):  # what is not there, or was written by others
        lines = (Path(source) / SHARES).read_text("utf-8").splitlines()
        warn_of_share(source, dtype, float(dict(line.split() for line in lines).get(dtype, 1)))


def warn_of_share(source: str | Path, dtype: str, share: float) -> None:
    """Warns if less than :data:`ENOUGH` of a change is left once its source is rounded to a type."""
    if share < ENOUGH:
        log.warning(
            "%s: %s keeps %.2f of the change, the rest is rounded away; take float32 (model.dtype of a run, --dtype of "
            "export)",
            source,
            dtype,
            share,
        )


def share_kept(model: Any, dtype: torch.dtype) -> float:
    """How much of the change of an adapter, not merged yet, is left once the changed weights are rounded to a type.

    With W the weights before, d the change and r the rounding, it is <r(W + d) - W, d> / <d, d> over all changed
    weights together: 1 if the whole change is left, 0 if rounding takes W + d back to W. That is what happens to
    changes below half the last bit of a W that is of this type itself; rounding a finer W loses none on average.
    """
    left = whole = 0.0
    with torch.no_grad():
        for before, change in _changes(model):
            kept = (before + change).to(dtype).to(before.dtype) - before
            left += float((kept * change).sum(dtype=torch.float64))
            whole += float(change.square().sum(dtype=torch.float64))
    return left / whole if whole else 1.0


def _changes(model: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights before, and what the adapter adds to them, one after the other."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            for name in layer.active_adapters:
                yield layer.get_base_layer().weight, layer.get_delta_weight(name)
        elif isinstance(module, ModulesToSaveWrapper):
            for trained in module.modules_to_save.values():
                for name, weight in trained.named_parameters():
                    before = module.original_module.get_parameter(name)
                    yield before, weight - before
