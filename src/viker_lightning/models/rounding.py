"""How much of an adapter's change is left in merged weights that are rounded, and who is told."""

import contextlib
import logging
import math
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


class Kept:
    """Counts how much of a change is left once the changed weights are rounded to smaller types.

    With W the weights before, d the change and r the rounding, it is <r(W + d) - W, d> / <d, d> over all changed
    weights together: 1 if the whole change is left, 0 if rounding takes W + d back to W. That is what happens to
    changes below half the last bit of a W that is of this type itself; rounding a finer W loses none on average.
    """

    def __init__(self) -> None:
        self._whole: list[float] = []
        self._left: dict[str, list[float]] = {kind: [] for kind in SMALLER}

    def add(self, before: Tensor, change: Tensor) -> None:
        """Counts one weight, some rows at a time, so that no copy of it is made."""
        rows = max(1, 2**22 * len(before) // max(1, before.numel()))
        for old, moved in zip(before.split(rows), change.split(rows), strict=True):
            self._whole.append(float(moved.square().sum(dtype=torch.float64)))
            for kind in self._left:
                kept = (old + moved).to(getattr(torch, kind)).to(old.dtype) - old
                self._left[kind].append(float((kept * moved).sum(dtype=torch.float64)))

    def share(self, dtype: str) -> float:
        """Of the change, that is left in a type; 1 if nothing was changed."""
        whole = math.fsum(self._whole)  # in whatever order they came
        return math.fsum(self._left.get(dtype, self._whole)) / whole if whole else 1.0

    def note(self, folder: Path) -> None:
        """Writes the shares of smaller types beside merged weights."""
        (folder / SHARES).write_text("".join(f"{kind} {self.share(kind)}\n" for kind in SMALLER), "utf-8")


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


def kept_by(model: Any) -> Kept:
    """How much of the change of an adapter, not merged yet, smaller types keep."""
    kept = Kept()
    with torch.no_grad():
        for before, change in _changes(model):
            kept.add(before, change)
    return kept


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
