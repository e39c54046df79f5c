"""Low-rank adapters: where they go, and how a saved one is put back."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from viker_lightning.errors import UserError

from .weight_files import folder_fingerprint, refuse_pickles

log = logging.getLogger(__name__)


@dataclass
class Lora:
    """Low-rank adapters on the language model; vision tower and projector are never adapted.

    Attributes:
        r: rank.
        alpha: scaling numerator; the update is ``alpha / r * B A``.
        dropout: dropout before ``A``.
        targets: names of the linear layers, within the language model only.
        init: how ``A`` starts, as PEFT's ``init_lora_weights`` has it: ``True`` uniformly within ``1 / sqrt(d_in)``, or
            ``gaussian`` with standard deviation ``1 / r``; ``B`` starts at 0.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    init: bool | str = True

    def __post_init__(self) -> None:
        if self.init not in (True, "gaussian"):
            raise UserError(
                f"model.lora.init: found {self.init!r}, expected true or gaussian; PEFT's other ways change the base "
                "weights or what the model says"
            )
        if self.r < 1 or self.alpha < 1 or not 0 <= self.dropout < 1 or not self.targets:
            raise UserError(
                f"model.lora: r={self.r} and alpha={self.alpha} must be at least 1, dropout={self.dropout} from 0 to "
                f"below 1, and targets={list(self.targets)} must name layers"
            )


def _new_config(lora: Lora, paths: str, trained: Sequence[str]) -> LoraConfig:
    """PEFT's settings of an adapter that begins anew."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        init_lora_weights=lora.init,  # type: ignore[arg-type]
        target_modules=paths,
        modules_to_save=list(trained) or None,
    )


def add_adapter(
    model: Any,
    language_model: str,
    lora: Lora | None,
    adapter: str | Path | None = None,
    trained: Sequence[str] = (),
    commit: str | None = None,
) -> PeftModel:
    """A model with LoRA on its language model, everything else frozen but what is named.

    Args:
        model: a transformers model.
        language_model: path of the module LoRA may go to.
        lora: rank, scale and layers; ``None`` takes those of the saved adapter.
        adapter: folder of a saved adapter to start from, whose own setting holds (rsLoRA, patterns); ``lora`` must
            not contradict it.
        trained: paths of modules that are trained in full and saved with the adapter (PEFT's ``modules_to_save``).
        commit: the commit the model comes from; saved with the adapter, unless the model is that of a folder.

    Raises:
        UserError: if a name is that of no layer, or the saved adapter is pickled, not there, or made with another
            setting.
    """
    names = "|".join(map(re.escape, lora.targets)) if lora else ".*"
    paths = rf"{re.escape(language_model)}\.(.*\.)?({names})"
    if lora is not None:
        _check_targets(model.get_submodule(language_model), lora.targets)
    if adapter is not None:
        config = saved_config(Path(adapter), lora)
        if lora is not None:
            _check_base(Path(adapter), model, commit)
    else:
        assert lora is not None
        config = _new_config(lora, paths, trained)
    config.revision = None if Path(model.name_or_path).is_dir() else commit  # PEFT itself notes the name alone
    head = model.get_output_embeddings()
    layers = {n for n, m in model.named_modules() if re.fullmatch(paths, n) or (lora is None and m is head)}
    try:
        peft_model: Any = get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError, KeyError, re.error) as error:
        if adapter is None and not isinstance(error, ValueError):
            raise
        made = lora if adapter is None else f"the adapter_config.json of {adapter}"
        raise UserError(f"model.lora: {str(error).splitlines()[0]} ({made})") from error
    for module in peft_model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            _allow_other_type(module)
    if adapter is not None:
        found = {name for name, module in peft_model.get_base_model().named_modules() if isinstance(module, LoraLayer)}
        _check_layers(Path(adapter), found, layers, lora)
        _load_adapter(Path(adapter), peft_model, lora)
    return peft_model


def saved_config(folder: Path, lora: Lora | None) -> LoraConfig:
    """How a saved adapter was made, rsLoRA and patterns of rank and alpha included; no weights are read.

    Args:
        folder: of the adapter.
        lora: the LoRA setting of this run, whose dropout is taken; ``None`` takes the adapter as it is.

    Raises:
        UserError: if it contradicts the LoRA setting of this run, or PEFT cannot use it.
    """
    refuse_pickles(folder, "adapter_model")
    saved = adapter_config(folder)
    for name, value in (("r", lora.r), ("lora_alpha", lora.alpha)) if lora else ():
        if saved.get(name) != value:
            raise UserError(
                f"{folder}: the adapter was made with {name}={saved.get(name)!r}, but this run has {value}; set "
                "model.lora to what it was made with"
            )
    if lora and (beyond := _beyond_layers(saved)):
        raise UserError(
            f"{folder}: the adapter has {beyond}, but this run trains LoRA layers alone; merge it into its model and "
            "give that as model.vanilla"
        )
    if not (saved.get("target_modules") or saved.get("target_parameters")):
        raise UserError(f"{folder}: target_modules of its adapter_config.json names no layer; save the adapter again")
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{folder}: PEFT cannot use its adapter_config.json ({str(error).splitlines()[0]}); save the adapter again"
        ) from error
    config.base_model_name_or_path = None  # PEFT notes the present one, and would warn of another
    if lora is not None:
        config.lora_dropout, config.inference_mode = lora.dropout, False
    return config


def _beyond_layers(saved: dict[str, Any]) -> str | None:
    """A setting by which an adapter changes more than its LoRA layers: taken off, it would not leave the original."""
    init = saved.get("init_lora_weights")
    if isinstance(init, str) and init not in ("gaussian", "orthogonal", "eva"):  # PiSSA and its like move the weights
        return f"init_lora_weights={init}"
    usual = {"bias": "none", "modules_to_save": None, "trainable_token_indices": None}
    return next(
        (f"{name}={saved[name]}" for name, value in usual.items() if saved.get(name) not in (value, None, [])), None
    )


def _check_base(folder: Path, model: Any, commit: str | None) -> None:
    """Makes sure, as far as can be seen, that an adapter was made on the model it is put on."""
    saved = adapter_config(folder)
    made, here = str(saved.get("base_model_name_or_path") or ""), str(model.name_or_path)
    revision = saved.get("revision")
    both = Path(made).is_dir(), Path(here).is_dir()
    if not made or made == here or (all(both) and Path(made).resolve() == Path(here).resolve()):
        known = [r for r in (revision, commit) if r and re.fullmatch("[0-9a-f]{40}", r)]
        differ = made == here and len(set(known)) == 2
    elif all(both):
        differ = folder_fingerprint(made) != folder_fingerprint(here)
    else:
        differ = not any(both) and not Path(made).is_absolute()
        if not differ:
            log.warning(
                "%s: made on %s, put on %s; whether they are the same weights cannot be told", folder, made, here
            )
    if differ:
        at = [f" at {r}" if r and made == here else "" for r in (revision, commit)]
        raise UserError(
            f"model.adapter: {folder} was made on {made}{at[0]}, but this run has {here}{at[1]}; give that model, or, "
            "if both are the same weights, write this one's name into adapter_config.json"
        )


def _check_layers(folder: Path, found: set[str], layers: set[str], lora: Lora | None) -> None:
    """Makes sure that an adapter has the layers asked for, no other; by itself, that all of them read tokens."""
    more, less = sorted(found - layers), sorted(layers - found) if lora else []
    if more or less:
        what = f"adapts {more[0]}, which" if more else f"does not adapt {less[0]}, which"
        where = "model.lora.targets" if lora else "the language model"
        said = ("is not one of" if lora else "is outside") if more else "is one of"
        raise UserError(
            f"{folder}: the adapter {what} {said} {where}; "
            + ("set model.lora to what it was made with" if lora else "merge it and give the full weights")
        )


def _load_adapter(folder: Path, peft_model: Any, lora: Lora | None) -> None:
    """Loads the weights of an adapter: exactly those that are expected, in their shapes."""
    try:
        saved = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: no adapter weights could be read ({error}); save the adapter again") from error
    expected = get_peft_model_state_dict(peft_model)
    setting = lora or "its own adapter_config.json says"
    for kind, keys in (("missing", set(expected) - set(saved)), ("unexpected", set(saved) - set(expected))):
        if keys:
            raise UserError(
                f"{folder}: {len(keys)} {kind} adapter keys, e.g. {sorted(keys)[0]!r}; the adapter was made for "
                f"another model or LoRA setting than {setting}"
            )
    for name, weight in sorted(expected.items()):
        if saved[name].shape != weight.shape:
            raise UserError(
                f"{folder}: {name} has shape {list(saved[name].shape)}, this model needs {list(weight.shape)}; the "
                f"adapter was made for another model or LoRA setting than {setting}"
            )
    if next(peft_model.parameters()).device.type != "meta":  # where names and shapes are all there is
        set_peft_model_state_dict(peft_model, saved)


def _allow_other_type(wrapper: Any) -> None:
    """Lets a module that is trained in fp32 stand in a model of another type."""

    def widen(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(a.to(next(module.parameters()).dtype) for a in arguments)

    def narrow(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(next(wrapper.original_module.parameters()).dtype)

    for trained in wrapper.modules_to_save.values():
        trained.register_forward_pre_hook(widen)
        trained.register_forward_hook(narrow)


def projector_paths(model: nn.Module, projector: nn.Module | None) -> list[str]:
    """Where the projector is in a model; some families have it in parts, and where there is none it is an error."""
    parts = [] if projector is None else [projector, *projector.children()]
    found = [name for name, module in model.named_modules() if any(module is part for part in parts)]
    if not found:
        raise UserError(
            f"model.train_projector: {type(model).__name__} has no projector apart from its vision tower, which is "
            "never trained; leave it out"
        )
    return [name for name in found if not any(name.startswith(f"{outer}.") for outer in found)]


def _check_targets(language_model: nn.Module, targets: Sequence[str]) -> None:
    """Makes sure that each target names a layer; one that does not would be left out without a word."""
    named = dict(language_model.named_modules())
    if unknown := [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in named)]:
        linear = sorted({name.split(".")[-1] for name, module in named.items() if isinstance(module, nn.Linear)})
        raise UserError(
            f"model.lora.targets: no layer of the language model is called {' or '.join(unknown)}; name some of "
            f"{', '.join(linear)}"
        )


def adapter_config(folder: str | Path) -> dict[str, Any]:
    """What PEFT wrote about an adapter: its settings, and ``base_model_name_or_path``, the model it was made on.

    Raises:
        UserError: if the folder holds no LoRA adapter.
    """
    try:
        config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder}: no adapter could be read ({error}); give an adapter folder as PEFT writes it"
        ) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise UserError(f"{folder}: found {'a ' + str(kind) if kind else 'no'} adapter, expected LORA; give another")
    return config
