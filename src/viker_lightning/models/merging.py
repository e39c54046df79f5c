"""Adapters away from the run that made them: with the model they belong to, or merged into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor

from viker_lightning.errors import UserError
from viker_lightning.files import replacing_folder

from .adapter import adapter_config
from .families import Family
from .mllm import MLLM
from .weight_files import refuse_pickles

log = logging.getLogger(__name__)

ENOUGH = 0.95
"""Least share of an adapter's change that merged weights keep without a warning."""


def load_adapted(
    adapter: str | Path,
    dtype: str = "float32",
    base: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    family: Family | None = None,
) -> MLLM:
    """Loads a saved adapter and the model it was made on.

    Args:
        adapter: folder as PEFT writes it.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the model's weights.
        base: the model, where it is not where the adapter says it was.
        revision: its branch, tag or commit, if it is a hub id.
        trust_remote_code: whether code that comes with the weights may run.
        family: the model's family; by default the one of this package that knows its architecture.

    Raises:
        UserError: if one of the two cannot be loaded, or they do not belong together.
    """
    refuse_pickles(adapter, "adapter_model")
    config = adapter_config(adapter)
    source = base or config.get("base_model_name_or_path")
    if not source:
        raise UserError(f"{adapter}: adapter_config.json does not say what model it was made on; name it")
    revision = revision or (None if base else config.get("revision"))
    mllm = MLLM.load(source, dtype, revision, trust_remote_code, family=family)
    mllm.adapt(None, adapter)
    return mllm


def load_merged(
    adapter: str | Path,
    dtype: str = "float32",
    base: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    family: Family | None = None,
) -> MLLM:
    """Loads a saved adapter and the model it was made on, as one model without adapter.

    The weights are read again, in main memory and in float32: a model in training keeps its own, a GPU needs no room
    for a copy, and no small change is rounded away as it is added. A smaller type rounds afterwards, and a warning says
    so if less than 0.95 of the change is left.

    Args:
        adapter: folder as PEFT writes it.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the weights in the end.
        base: the model, where it is not where the adapter says it was.
        revision: its branch, tag or commit, if it is a hub id.
        trust_remote_code: whether code that comes with the weights may run.
        family: the model's family; by default the one of this package that knows its architecture.

    Raises:
        UserError: if adapter or model cannot be loaded, or they do not belong together.
    """
    mllm = load_adapted(adapter, "float32", base, revision, trust_remote_code, family)
    if dtype != "float32" and (share := share_kept(mllm.model, getattr(torch, dtype))) < ENOUGH:
        log.warning("%s: %s keeps %.2f of the change, the rest is rounded away; write float32", adapter, dtype, share)
    mllm.model = mllm.model.merge_and_unload().to(getattr(torch, dtype))
    return mllm


def write_merged(
    adapter: str | Path,
    folder: str | Path,
    dtype: str = "float32",
    base: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    family: Family | None = None,
) -> None:
    """Writes full weights (safetensors) with an adapter added to them, and the processor; whole or not at all.

    Args:
        adapter: folder as PEFT writes it.
        folder: where to; what is there is replaced.
        dtype: as of :func:`load_merged`, like what follows.
        base: the model.
        revision: its branch, tag or commit.
        trust_remote_code: whether code that comes with the weights may run.
        family: the model's family.

    Raises:
        UserError: if adapter or model cannot be loaded, or they do not belong together.
    """
    mllm = load_merged(adapter, dtype, base, revision, trust_remote_code, family)
    with replacing_folder(Path(folder)) as written:
        mllm.save(written)


def revision_of(source: str, commit: str | None, revision: str | None) -> str | None:
    """What to read weights again at: the commit that was read, else the revision asked for; a folder has neither."""
    return None if Path(source).is_dir() else commit or revision


def share_kept(model: Any, dtype: torch.dtype) -> float:
    """How much of an adapter's change is left once the changed weights are rounded.

    With W the weights before, d the change and r the rounding, it is <r(W + d) - W, d> / <d, d> over all changed
    weights together: 1 if the whole change is left, 0 if rounding takes W + d back to W. That is what happens to
    changes below half the last bit of a W that is of this type itself; rounding a finer W loses none on average.

    Args:
        model: a PEFT model, not merged.
        dtype: what the changed weights are rounded to.
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
