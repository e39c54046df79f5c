"""Adapters away from the run that made them: with the model they belong to, or merged into it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing_folder
from viker_lightning.storage.runs import Run, names

from .adapter import adapter_config
from .families import Family
from .mllm import MLLM
from .rounding import note_shares, share_kept, warn_of_share
from .weight_files import identify_weights, refuse_pickles

log = logging.getLogger(__name__)


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
    return _merge(mllm, adapter, dtype)


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

    Beside them stands how much of the adapter's change smaller types keep, for whoever loads them in one.

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
    mllm = load_adapted(adapter, "float32", base, revision, trust_remote_code, family)
    with replacing_folder(Path(folder)) as written:
        note_shares(mllm.model, written)
        _merge(mllm, adapter, dtype).save(written)


def revision_of(source: str, commit: str | None, revision: str | None) -> str | None:
    """What to read weights again at: the commit that was read, else the revision asked for; a folder has neither."""
    return None if Path(source).is_dir() else commit or revision


def revision_of_base(run: Run, given: str | None, option: str, trust_remote_code: bool) -> str | None:
    """What to read the model again at that a run began with; ``None`` for a folder, or where another place is named.

    Args:
        run: a finished run.
        given: where its model is now; ``None`` for where the run found it.
        option: that says so, for the message.
        trust_remote_code: whether code that comes with the model may run, which is not for a folder to say.

    Raises:
        UserError: if the run does not say what it began with, needs code that is not trusted, or began with other
            weights than those given; where that cannot be told, a warning says so.
    """
    made, file = run.provenance, run.folder / names.PROVENANCE
    source = made.get("base_weights")
    if not source:
        raise UserError(f"{file}: does not say what model the run began with; run it again")
    if made.get("trust_remote_code") and not trust_remote_code:
        raise UserError(
            f"{file}: the run let code that comes with {source} run; if you trust it, add --trust_remote_code"
        )
    if given is None or given == source:
        return revision_of(source, made.get("base_commit"), made.get("base_revision"))
    found = identify_weights(given)
    known = [kind for kind in ("commit", "fingerprint") if found[kind] and made.get(f"base_{kind}")]
    if not known:
        log.warning("%s: whether %s is what %s began with (%s) cannot be told", option, given, run.folder, source)
    elif all(found[kind] != made[f"base_{kind}"] for kind in known):
        raise UserError(
            f"{option}: {given} is not the model that {run.folder} began with, which was {source}; give that one"
        )
    return None


def _merge(mllm: MLLM, adapter: str | Path, dtype: str) -> MLLM:
    """Adds the adapter to the weights, which are in float32, and rounds them then."""
    if dtype != "float32":
        warn_of_share(adapter, dtype, share_kept(mllm.model, getattr(torch, dtype)))
    mllm.model = mllm.model.merge_and_unload().to(getattr(torch, dtype))
    return mllm
