"""Who is attacked: the unlearned model, gold, or vanilla, as it lies in a folder or on a hub."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from viker_lightning.models import MLLM, Quantize, identify_weights, load_adapted, load_merged
from viker_lightning.models.adapter import adapter_config
from viker_lightning.models.families import Family
from viker_lightning.models.mllm import MAX_SEQUENCE_TOKENS, MAX_TOKENS
from viker_lightning.storage.runs import names, weights_folder
from viker_lightning.training.vanilla import merged_adapter, unlearned_model

Name = Literal["run", "gold", "vanilla"]
NAMES: tuple[Name, ...] = ("run", "gold", "vanilla")


@dataclass(frozen=True)
class Subject:
    """A model under attack.

    Attributes:
        name: ``run`` for the unlearned model.
        source: run folder, folder of an adapter or of full weights, or hub id.
        folder: where its attempts are kept.
        dtype: of its weights, as the run had them.
        max_sequence_tokens: most tokens of one packed sequence, as the run had it.
        max_tokens: most tokens that pass the model together.
        checkpointing: whether training keeps only layer inputs for the backward pass.
        trust_remote_code: whether code that comes with the weights may run.
        family: the model's family, where this package has none for it.
    """

    name: Name
    source: str
    folder: Path
    dtype: str = "float32"
    max_sequence_tokens: int = MAX_SEQUENCE_TOKENS
    max_tokens: int = MAX_TOKENS
    checkpointing: bool = False
    trust_remote_code: bool = False
    family: Family | None = None

    def load(self, quantize: Quantize | None = None) -> MLLM:
        """The model with any adapter merged in, frozen, in evaluation mode, on the first GPU if there is one.

        Args:
            quantize: how bitsandbytes keeps the language model's linear layers; as they are by default.

        Raises:
            UserError: if there is no such model, or bitsandbytes cannot do that here.
        """
        weights = self.source
        if self.adapter is None or self.adapter != Path(self.source):
            weights = unlearned_model(self.source, self.trust_remote_code, self.family)
        elif quantize is None:  # away from the run that made it
            remote, family = self.trust_remote_code, self.family
            return self._ready(load_merged(self.adapter, self.dtype, None, None, remote, family))
        else:
            weights = merged_adapter(self.adapter, self.trust_remote_code, self.family)
        return self._ready(MLLM.load(weights, self.dtype, None, self.trust_remote_code, quantize, self.family))

    def load_with_adapter(self) -> MLLM | None:
        """The model with its adapter beside it, as the run left it; ``None`` if it has none."""
        if self.adapter is None:
            return None
        found = load_adapted(self.adapter, self.dtype, trust_remote_code=self.trust_remote_code, family=self.family)
        return self._ready(found)

    def _ready(self, mllm: MLLM) -> MLLM:
        mllm.requires_grad_(False)
        mllm.set_budgets(self.max_sequence_tokens, self.max_tokens)
        return mllm.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @property
    def adapter(self) -> Path | None:
        """The folder of its adapter, if it has one."""
        here = Path(self.source)
        found = here if any(here.glob("adapter_config.json")) else here / names.ADAPTER
        return found if (found / "adapter_config.json").is_file() and not (here / names.MODEL).is_dir() else None

    def config_source(self) -> str:
        """Where its config.json is."""
        if self.adapter is not None and not (Path(self.source) / names.MERGED).is_dir():
            return str(adapter_config(self.adapter).get("base_model_name_or_path"))
        return str(weights_folder(self.source))

    def fingerprint(self) -> str:
        """Which weights these are."""
        return f"{_identity(str(self.adapter or self.source), self.adapter)}/{self.dtype}"


@functools.cache
def _identity(source: str, files: Path | None) -> str:
    """The commit or hash of weights, which do not change while they are attacked."""
    found = identify_weights(source, files)
    return found["commit"] or found["fingerprint"] or source
