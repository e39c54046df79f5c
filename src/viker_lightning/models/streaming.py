"""An adapter added to weights that are read and written one after the other: never is the whole model in memory."""

from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import Linear
from peft.tuners.lora import LoraLayer as AnyLora
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from viker_lightning.storage.runs.names import weights_folder
from viker_lightning.storage.shards import Shards

from .adapter import adapter_config
from .instruction import save_instruction, saved_instruction
from .loading import Weights, skeleton
from .mllm import MLLM
from .rounding import Kept

PLAIN = {"bias": "none", "lora_bias": False, "use_dora": False, "trainable_token_indices": None}
"""Settings of an adapter that can be added so."""


def stream_merged(adapter: Path, source: str, weights: Weights, dtype: str, folder: Path) -> Kept | None:
    """Writes full weights with an adapter added in float32, and rounded then, and the processor.

    What is written is what merging the whole model and saving it would write.

    Args:
        adapter: folder as PEFT writes it.
        source: the model it was made on, folder or hub id.
        weights: how that is loaded.
        dtype: of what is written.
        folder: an empty one.

    Returns:
        How much of the change smaller types keep; ``None``, with nothing written, where the whole model must be loaded:
        names in the files are not those transformers would write, or the adapter has more than plain LoRA layers and
        whole modules.

    Raises:
        UserError: if the model has no family, or the adapter does not belong to it.
    """
    model, processor, family = skeleton(source, weights)
    state = model.state_dict()
    places = _places(model, state, source, weights)
    config = adapter_config(adapter)
    plain = all(config.get(name) in (value, None) for name, value in PLAIN.items())
    if places is None or not plain or isinstance(config.get("init_lora_weights"), str):
        return None
    mllm = MLLM(model, processor, None, family)
    mllm.instruct(saved_instruction(weights_folder(source), weights.revision))
    mllm.adapt(None, adapter)
    changed = _changed(mllm.base, load_file(adapter / "adapter_model.safetensors"))
    if changed is None or not changed.keys() <= {name for name, _ in places.values()}:
        return None
    kept, kind = Kept(), getattr(torch, dtype)
    base = mllm.model.unload().to(kind)
    for name in base.config.sub_configs:  # as after loading
        getattr(base.config, name).dtype = weights.dtype
    base.save_pretrained(folder, state_dict={})  # the settings alone
    processor.save_pretrained(folder)
    save_instruction(mllm.instruction, folder)
    shards = Shards(folder)
    for saved, (name, file) in places.items():
        with safe_open(file, "pt") as opened:  # anew for each: pages of a file stay in memory while it is open
            weight = opened.get_tensor(saved)
            if name in changed:
                weight = _added(weight.float(), changed[name], kept)
            shards.add(saved, weight.to(kind, copy=True) if weight.is_floating_point() else weight.clone())
            del weight
    shards.close()
    return kept


def _places(model: Any, state: dict[str, Tensor], source: str, weights: Weights) -> dict[str, tuple[str, str]] | None:
    """By the name of each weight in the files: its name in the model, and the file.

    ``None`` where the names that transformers would write are not in the files in these shapes: it has converted
    weights as it read them, or the files are of a quantised model.
    """
    source = str(weights_folder(source))
    options: dict[str, Any] = {"revision": weights.revision, "_raise_exceptions_for_missing_entries": False}
    single, index = (cached_file(source, name, **options) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    if (single or index) is None or hasattr(model.config, "quantization_config"):
        return None
    files = [single] if single else get_checkpoint_shard_files(source, index, revision=weights.revision)[0]
    there: dict[str, tuple[str, list[int]]] = {}
    try:
        for file in files:
            with safe_open(file, "pt") as opened:
                there |= {name: (file, opened.get_slice(name).get_shape()) for name in opened.keys()}
    except (SafetensorError, OSError):  # said by whoever loads the whole
        return None
    own = {name: weight for name, weight in state.items() if name not in model.all_tied_weights_keys}
    called = {id(weight): name for name, weight in own.items()}
    for written in (revert_weight_conversion(model, dict(own)), own):
        if all(name in there and there[name][1] == [*weight.shape] for name, weight in written.items()):
            if {id(weight) for weight in written.values()} == called.keys():
                return {name: (called[id(weight)], there[name][0]) for name, weight in written.items()}
    return None


def _changed(base: Any, saved: dict[str, Tensor]) -> dict[str, Tensor | Linear] | None:
    """By name, what each changed weight becomes, or the LoRA layer, with its numbers, that changes it."""
    changed: dict[str, Tensor | Linear] = {}
    for path, module in base.named_modules():
        file = f"base_model.model.{path}"
        if isinstance(module, ModulesToSaveWrapper):
            for name, _ in module.original_module.named_parameters():
                changed[f"{path}.{name}"] = saved[f"{file}.{name}"].float()
        elif isinstance(module, AnyLora):
            if type(module) is not Linear:
                return None
            for part in ("lora_A", "lora_B"):
                (layer,) = getattr(module, part).values()
                layer.weight = nn.Parameter(saved[f"{file}.{part}.weight"].float(), requires_grad=False)
            changed[f"{path}.weight"] = module
    return changed


def _added(before: Tensor, change: Tensor | Linear, kept: Kept) -> Tensor:
    """A weight in float32 with its change, which is counted."""
    if isinstance(change, Tensor):
        kept.add(before, change - before)
        return change
    (name,) = change.active_adapters
    delta = change.get_delta_weight(name)
    kept.add(before, delta)
    return before + delta  # as PEFT adds it
