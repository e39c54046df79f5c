"""Low-rank adapters: where they go, and how a saved one is put back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from viker_lightning.errors import UserError

from .files import refuse_pickles


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


def adapted(
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
        adapter: folder of a saved adapter to start from.
        trained: paths of modules that are trained in full and saved with the adapter (PEFT's ``modules_to_save``).
        commit: the commit the model comes from; saved with the adapter, unless the model is that of a folder.

    Raises:
        UserError: if a name is that of no layer, or the saved adapter is pickled, not there, or made with another
            setting.
    """
    if lora is None:
        assert adapter is not None
        adapter_config(adapter)  # whose errors are plainer
        config = LoraConfig.from_pretrained(str(adapter))
    else:
        _check_targets(model.get_submodule(language_model), lora.targets)
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            init_lora_weights=lora.init,  # type: ignore[arg-type]
            target_modules=rf"{re.escape(language_model)}\.(.*\.)?({'|'.join(map(re.escape, lora.targets))})",
            modules_to_save=list(trained) or None,
        )
    config.revision = None if Path(model.name_or_path).is_dir() else commit  # PEFT itself notes the name alone
    try:
        peft_model: Any = get_peft_model(model, config)
    except ValueError as error:
        made = lora or f"the adapter_config.json of {adapter}"
        raise UserError(f"model.lora: {str(error).splitlines()[0]} ({made})") from error
    for module in peft_model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            _allow_other_type(module)
    if adapter is not None:
        saved = saved_adapter(Path(adapter), lora)
        expected = set(get_peft_model_state_dict(peft_model))
        for kind, keys in (("missing", expected - set(saved)), ("unexpected", set(saved) - expected)):
            if keys:
                raise UserError(
                    f"{adapter}: {len(keys)} {kind} adapter keys, e.g. {sorted(keys)[0]!r}; the adapter was made for "
                    f"another model or LoRA setting than {lora or 'its own adapter_config.json says'}"
                )
        set_peft_model_state_dict(peft_model, saved)
    return peft_model


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
    """Where the projector is in a model; some families have it in parts.

    Args:
        model: a transformers model.
        projector: what its family takes for the projector.

    Raises:
        UserError: if there is none.
    """
    parts = [] if projector is None else [projector, *projector.children()]
    found = [name for name, module in model.named_modules() if any(module is part for part in parts)]
    if not found:
        raise UserError(
            f"model.train_projector: {type(model).__name__} has no projector apart from its vision tower, which is "
            "never trained; leave it out"
        )
    return [name for name in found if not any(name.startswith(f"{outer}.") for outer in found)]


def _check_targets(language_model: nn.Module, targets: Sequence[str]) -> None:
    """Makes sure that each target names a layer; one that does not would be left out without a word.

    Raises:
        UserError: if one does not.
    """
    named = dict(language_model.named_modules())
    if unknown := [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in named)]:
        linear = sorted({name.split(".")[-1] for name, module in named.items() if isinstance(module, nn.Linear)})
        raise UserError(
            f"model.lora.targets: no layer of the language model is called {' or '.join(unknown)}; name some of "
            f"{', '.join(linear)}"
        )


def saved_adapter(folder: Path, lora: Lora | None) -> dict[str, Tensor]:
    """The weights of an adapter, which must be safetensors, and made with that rank and scale if one is given.

    Raises:
        UserError: if they are not.
    """
    refuse_pickles(folder, "adapter_model")
    config = adapter_config(folder)
    for name, value in (("r", lora.r), ("lora_alpha", lora.alpha)) if lora else ():
        if config.get(name) != value:
            raise UserError(
                f"{folder}: the adapter was made with {name}={config.get(name)}, but this run has {value}; set "
                "model.lora to what it was made with"
            )
    try:
        return load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: no adapter weights could be read ({error}); save the adapter again") from error


def adapter_config(folder: str | Path) -> dict[str, Any]:
    """What PEFT wrote about an adapter: its settings, and ``base_model_name_or_path``, the model it was made on.

    Raises:
        UserError: if the folder holds no LoRA adapter.
    """
    try:
        config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: no adapter could be read ({error}); give an adapter folder as PEFT writes it"
        ) from error
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder}: found a {config.get('peft_type')} adapter, expected LORA; give another")
    return config
