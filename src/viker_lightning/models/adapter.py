"""Low-rank adapters: where they go, and how a saved one is put back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from viker_lightning.errors import UserError


@dataclass
class Lora:
    """Low-rank adapters on the language model; vision tower and projector are never adapted.

    Attributes:
        r: rank.
        alpha: scaling numerator; the update is ``alpha / r * B A``.
        dropout: dropout before ``A``.
        targets: names of the linear layers, within the language model only.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted(model: Any, language_model: str, lora: Lora, adapter: str | Path | None = None) -> PeftModel:
    """A model with LoRA on its language model, everything else frozen.

    Args:
        model: a transformers model.
        language_model: pattern of the module paths LoRA may go to.
        lora: rank, scale and layers.
        adapter: folder of a saved adapter to start from.

    Raises:
        UserError: if no layer has one of the names, or a key of the saved adapter is missing or unexpected.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf"{language_model}\.({'|'.join(lora.targets)})",
    )
    try:
        peft_model: Any = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"lora.targets: no layer of the language model is called any of {lora.targets}") from error
    if adapter is not None:
        saved = load_file(Path(adapter) / "adapter_model.safetensors")
        expected = set(get_peft_model_state_dict(peft_model))
        for kind, keys in (("missing", expected - set(saved)), ("unexpected", set(saved) - expected)):
            if keys:
                raise UserError(
                    f"{adapter}: {len(keys)} {kind} adapter keys, e.g. {sorted(keys)[0]!r}; the adapter was made for "
                    f"another model or LoRA setting than r={lora.r}, targets={list(lora.targets)}"
                )
        set_peft_model_state_dict(peft_model, saved)
    return peft_model
