"""Weights and processor from a folder or the hub: safetensors only, the language model quantised if asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoProcessor, BitsAndBytesConfig
from transformers.utils.hub import cached_file, extract_commit_hash

from viker_lightning.errors import UserError
from viker_lightning.storage.files import check_index
from viker_lightning.storage.runs.names import weights_folder

from .families import Family, choose_family
from .rounding import warn_of_rounding
from .weight_files import refuse_pickles

Quantize = Literal["nf4", "int8", "fp4"]


@dataclass(frozen=True)
class Weights:
    """How weights are loaded.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        quantize: how the language model's linear layers are kept.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: whether code that comes with the weights may run.
        family: of the model; by default the one of this package that knows its architecture.
    """

    dtype: str = "float32"
    quantize: Quantize | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    family: Family | None = None

    @property
    def of_hub(self) -> dict[str, Any]:
        """What transformers is told of them."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


OF_VALUES = (TypeError, AttributeError, LookupError, StrictDataclassError)
"""What transformers stumbles over where a JSON file holds something else."""


def architecture_of(source: str | Path, trust_remote_code: bool = False) -> str:
    """Which architecture weights are of: the name of a class, as ``config.json`` has it."""
    with _in_one_line(str(source)):
        config = AutoConfig.from_pretrained(str(weights_folder(source)), trust_remote_code=trust_remote_code)
    return (config.architectures or ["unknown"])[0]


def load_weights(source: str | Path, weights: Weights) -> tuple[Any, Any, str | None, Family]:
    """Loads weights and processor.

    Args:
        source: folder, run folder of a fine-tuning run, or hub id.
        weights: how they are loaded.

    Returns:
        Model, processor, the commit the weights come from, if they come from the hub, and the family.

    Raises:
        UserError: if there is nothing to load, the weights are pickled or incomplete, the architecture has no family,
            or the quantisation is not available here.
    """
    source = _checked(source, weights)
    with _in_one_line(source):
        _check_listed(source, weights.revision)
        config = AutoConfig.from_pretrained(source, **weights.of_hub)
        reported = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which are refused below, by name
        dtype = getattr(torch, weights.dtype)
        options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", **weights.of_hub}
        family, model_class = choose_family((config.architectures or ["unknown"])[0], weights.family)
        if weights.quantize is not None:
            options["quantization_config"] = quantization(weights.quantize, config, family, model_class, dtype)
        model, report = model_class.from_pretrained(source, use_safetensors=True, **reported, **options)
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):  # once packed so, they pass no gradient (0.50)
                module.support_avx512bf16_for_cpu = False
        processor = AutoProcessor.from_pretrained(source, **weights.of_hub)
        commit = extract_commit_hash(cached_file(source, "config.json", revision=weights.revision), None)
    warn_of_rounding(source, weights.dtype)
    if other := sorted(report["mismatched_keys"]):
        name, found, expected = other[0]
        raise UserError(
            f"{source}: {len(other)} weights have another shape than config.json says, e.g. {name!r}: found "
            f"{[*found]}, expected {[*expected]}; give the config.json that belongs to the weights"
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{source}: {len(missing)} weights are missing, e.g. {missing[0]!r}, and would be random; give a complete "
            "model"
        )
    return model, processor, commit, family


def skeleton(source: str | Path, weights: Weights = Weights()) -> tuple[Any, Any, Family]:
    """Model, processor and family as of :func:`load_weights`, without weights: names and shapes on torch's meta device.

    Configuration, tokenizer and processor are read, from the hub if need be; no file of weights is opened or fetched.

    Args:
        source: folder, run folder of a fine-tuning run, or hub id.
        weights: how they would be loaded; whether a quantisation is available here is looked at, shapes are those of
            whole weights.

    Raises:
        UserError: as :func:`load_weights`, as far as it can be told without weights.
    """
    source = _checked(source, weights)
    if Path(source).is_dir() and not any([*Path(source).glob("*.safetensors"), *Path(source).glob("config.json")]):
        raise UserError(f"{source}: found no weights (*.safetensors), expected a model folder; give another")
    with _in_one_line(source):
        _check_listed(source, weights.revision)
        config = AutoConfig.from_pretrained(source, **weights.of_hub)
        family, model_class = choose_family((config.architectures or ["unknown"])[0], weights.family)
        if weights.quantize is not None:
            quantization(weights.quantize, config, family, model_class, torch.float32)
        make = getattr(model_class, "from_config", None) or model_class._from_config
        with torch.device("meta"):
            model = make(config, attn_implementation="sdpa")
        processor = AutoProcessor.from_pretrained(source, **weights.of_hub)
    return model, processor, family


def _checked(source: str | Path, weights: Weights) -> str:
    """Folder or hub id of full weights; a folder has no revision, and no pickles."""
    source = str(weights_folder(source))
    if weights.revision is not None and Path(source).is_dir():
        raise UserError(
            f"revision={weights.revision}: only a hub id has revisions, and {source} is a folder; leave it out"
        )
    refuse_pickles(source)
    return source


@contextmanager
def _in_one_line(source: str) -> Iterator[None]:
    """Says in one line what transformers found wrong with a model."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{source}: no model could be loaded ({reason}); give a model folder or a hub id") from error
    except Exception as error:
        if not isinstance(error, OF_VALUES) and type(error) is not Exception:  # tokenizers raises the bare class
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"{source}: no model could be loaded ({reason}); a value in one of its JSON files is not as transformers "
            "expects it: write config.json, generation_config.json, tokenizer and processor again with save_pretrained"
        ) from error


def _check_listed(source: str, revision: str | None) -> None:
    """Makes sure that transformers will read safetensors, and the model alone: it would put an adapter on it."""

    def there(name: str) -> str | None:
        return cached_file(
            source,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )

    if not Path(source).is_dir():
        cached_file(source, "config.json", revision=revision)  # fails at once where the hub cannot be reached
    if there("adapter_config.json"):
        raise UserError(
            f"{source}: found an adapter (adapter_config.json), expected full weights alone; merge it, or give the "
            "model it was made on, and the adapter as model.adapter"
        )
    if index := there("model.safetensors.index.json"):
        check_index(Path(index))


def quantization(
    quantize: Quantize, config: Any, family: Family, model_class: Any, dtype: torch.dtype
) -> BitsAndBytesConfig:
    """Settings by which bitsandbytes keeps the language model's linear layers, and nothing else, in fewer bits.

    ``nf4`` is QLoRA's (Dettmers et al. 2023, arXiv 2305.14314): 4-bit NormalFloat with doubly quantised constants,
    computed in the type of the other weights; ``int8`` is LLM.int8 (arXiv 2208.07339), which rounds activations too, in
    training otherwise than in evaluation, so that a reference differs a little from the student it came from. ``fp4``,
    a 4-bit float, is what bitsandbytes takes where nothing else is said, without double quantisation; it is here as an
    attack (arXiv 2410.16454, zzwjames/FailureLLMUnlearning utils.py L92), and gains nothing in training.
    """
    if find_spec("bitsandbytes") is None:
        install = "pip install -e '.[quant]' in the repository"
        raise UserError(f"quantize={quantize}: bitsandbytes is not installed; {install}")
    with torch.device("meta"):  # names only
        make = getattr(model_class, "from_config", None) or model_class._from_config
        skeleton = make(config)
    inside = {id(module) for module in family.language_model(skeleton).modules()}
    kept = [n for n, m in skeleton.named_modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=quantize == "nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )
