"""Adapters away from the run that made them: with the model they belong to, or merged into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing_folder

from .adapter import adapter_config
from .loading import Weights
from .mllm import MLLM
from .rounding import note_shares, share_kept, warn_of_share
from .weight_files import refuse_pickles


def load_adapted(adapter: str | Path, weights: Weights = Weights(), base: str | None = None) -> MLLM:
    """Loads a saved adapter and the model it was made on.

    Args:
        adapter: folder as PEFT writes it.
        weights: how those of the model are loaded.
        base: the model, where it is not where the adapter says it was.

    Raises:
        UserError: if one of the two cannot be loaded, or they do not belong together.
    """
    refuse_pickles(adapter, "adapter_model")
    config = adapter_config(adapter)
    source = base or config.get("base_model_name_or_path")
    if not source:
        raise UserError(f"{adapter}: adapter_config.json does not say what model it was made on; name it")
    revision = weights.revision or (None if base else config.get("revision"))
    mllm = MLLM.load(source, replace(weights, revision=revision))
    mllm.adapt(None, adapter)
    return mllm


def load_merged(adapter: str | Path, weights: Weights = Weights(), base: str | None = None) -> MLLM:
    """Loads a saved adapter and the model it was made on, as one model without adapter.

    The weights are read again, in main memory and in float32: a model in training keeps its own, a GPU needs no room
    for a copy, and no small change is rounded away as it is added. A smaller type rounds afterwards, and a warning says
    so if less than 0.95 of the change is left.

    Args:
        adapter: folder as PEFT writes it.
        weights: how those of the model are loaded, never quantised; the type is theirs in the end.
        base: the model, where it is not where the adapter says it was.

    Raises:
        UserError: if adapter or model cannot be loaded, or they do not belong together.
    """
    return _merge(load_adapted(adapter, _whole(weights), base), adapter, weights.dtype)


def write_merged(
    adapter: str | Path, folder: str | Path, weights: Weights = Weights(), base: str | None = None
) -> None:
    """Writes full weights (safetensors) with an adapter added to them, and the processor; whole or not at all.

    Beside them stands how much of the adapter's change smaller types keep, for whoever loads them in one.

    Args:
        adapter: folder as PEFT writes it.
        folder: where to; what is there is replaced.
        weights: as of :func:`load_merged`.
        base: the model.

    Raises:
        UserError: if adapter or model cannot be loaded, or they do not belong together.
    """
    mllm = load_adapted(adapter, _whole(weights), base)
    with replacing_folder(Path(folder)) as written:
        note_shares(mllm.model, written)
        _merge(mllm, adapter, weights.dtype).save(written)


def revision_of(source: str, commit: str | None, revision: str | None) -> str | None:
    """What to read weights again at: the commit that was read, else the revision asked for; a folder has neither."""
    return None if Path(source).is_dir() else commit or revision


def _whole(weights: Weights) -> Weights:
    """As an adapter is added to them."""
    return replace(weights, dtype="float32", quantize=None)


def _merge(mllm: MLLM, adapter: str | Path, dtype: str) -> MLLM:
    """Adds the adapter to the weights, which are in float32, and rounds them then."""
    if dtype != "float32":
        warn_of_share(adapter, dtype, share_kept(mllm.model, getattr(torch, dtype)))
    mllm.model = mllm.model.merge_and_unload().to(getattr(torch, dtype))
    return mllm
