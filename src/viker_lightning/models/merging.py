"""Adapters away from the run that made them: with the model they belong to, or merged into it."""

from dataclasses import replace
from pathlib import Path

import torch

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing_folder

from .adapter import adapter_config
from .loading import Weights
from .mllm import MLLM
from .rounding import kept_by, warn_of_share
from .streaming import stream_merged
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
    mllm = MLLM.load(*_made_on(adapter, weights, base))
    mllm.adapt(None, adapter)
    return mllm


def _made_on(adapter: str | Path, weights: Weights, base: str | None) -> tuple[str, Weights]:
    """The model an adapter was made on, and how to load it."""
    refuse_pickles(adapter, "adapter_model")
    config = adapter_config(adapter)
    source = base or config.get("base_model_name_or_path")
    if not source:
        raise UserError(f"{adapter}: adapter_config.json does not say what model it was made on; name it")
    return str(source), replace(weights, revision=weights.revision or (None if base else config.get("revision")))


def load_merged(adapter: str | Path, weights: Weights = Weights(), base: str | None = None) -> MLLM:
    """Loads a saved adapter and the model it was made on, as one model without adapter.

    The weights are read again, in main memory and in float32: a model in training keeps its own, a GPU needs no room
    for a copy, and no small change is rounded away as it is added. A smaller type rounds afterwards, and a warning says
    so if less than 0.95 of the change is left. Arguments and errors are those of :func:`load_adapted`; nothing is
    quantised, and the type of ``weights`` is theirs in the end.
    """
    mllm = load_adapted(adapter, _whole(weights), base)
    if weights.dtype != "float32":
        warn_of_share(adapter, weights.dtype, kept_by(mllm.model).share(weights.dtype))
    mllm.model = mllm.model.merge_and_unload().to(getattr(torch, weights.dtype))
    return mllm


def write_merged(
    adapter: str | Path, folder: str | Path, weights: Weights = Weights(), base: str | None = None
) -> None:
    """Writes full weights (safetensors) with an adapter added to them, and the processor; whole or not at all.

    They are read, changed and written one after the other where :func:`~viker_lightning.models.streaming.stream_merged`
    can do that, so that memory holds a small part of them; the result is the same. Beside them stands how much of the
    adapter's change smaller types keep, for whoever loads them in one. What is in ``folder`` is replaced; the other
    arguments, and errors, are those of :func:`load_merged`.
    """
    source, whole = _made_on(adapter, _whole(weights), base)
    with replacing_folder(Path(folder)) as written:
        kept = stream_merged(Path(adapter), source, whole, weights.dtype, written)
        if kept is None:
            mllm = load_adapted(adapter, whole, base)
            kept = kept_by(mllm.model)
            mllm.model = mllm.model.merge_and_unload().to(getattr(torch, weights.dtype))
            mllm.save(written)
        kept.note(written)
    warn_of_share(adapter, weights.dtype, kept.share(weights.dtype))


def revision_of(source: str, commit: str | None, revision: str | None) -> str | None:
    """What to read weights again at: the commit that was read, else the revision asked for; a folder has neither."""
    return None if Path(source).is_dir() else commit or revision


def _whole(weights: Weights) -> Weights:
    """As an adapter is added to them."""
    return replace(weights, dtype="float32", quantize=None)
