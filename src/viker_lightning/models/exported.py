"""Adapters away from the run that made them: with the model they belong to, or merged into it."""

from __future__ import annotations

from pathlib import Path

from viker_lightning.errors import UserError
from viker_lightning.files import replacing_folder

from .adapter import adapter_config
from .files import refuse_pickles
from .mllm import MLLM


def load_adapted(
    adapter: str | Path,
    dtype: str = "float32",
    base: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> MLLM:
    """Loads a saved adapter and the model it was made on.

    Args:
        adapter: folder as PEFT writes it.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the model's weights.
        base: the model, where it is not where the adapter says it was.
        revision: its branch, tag or commit, if it is a hub id.
        trust_remote_code: whether code that comes with the weights may run.

    Raises:
        UserError: if one of the two cannot be loaded, or they do not belong together.
    """
    refuse_pickles(adapter, "adapter_model")
    config = adapter_config(adapter)
    source = base or config.get("base_model_name_or_path")
    if not source:
        raise UserError(f"{adapter}: adapter_config.json does not say what model it was made on; name it")
    mllm = MLLM.load(source, dtype, revision or (None if base else config.get("revision")), trust_remote_code)
    mllm.adapt(None, adapter)
    return mllm


def write_merged(
    adapter: str | Path,
    folder: str | Path,
    dtype: str = "float32",
    base: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Writes full weights (safetensors) with an adapter added to them, and the processor; whole or not at all.

    The weights are read again, in main memory: a model in training keeps its own, and a GPU needs no room for a copy.

    Args:
        adapter: folder as PEFT writes it.
        folder: where to; what is there is replaced.
        dtype: of the weights that are written.
        base: the model, where it is not where the adapter says it was.
        revision: its branch, tag or commit, if it is a hub id.
        trust_remote_code: whether code that comes with the weights may run.

    Raises:
        UserError: if adapter or model cannot be loaded, or they do not belong together.
    """
    mllm = load_adapted(adapter, dtype, base, revision, trust_remote_code)
    mllm.model = mllm.model.merge_and_unload()
    with replacing_folder(Path(folder)) as written:
        mllm.save(written)
