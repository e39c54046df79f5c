"""Who is attacked: the unlearned model, gold, or vanilla, as it lies in a folder or on a hub."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Quantize, Weights, identify_weights, load_merged
from viker_lightning.training.finished import FinishedRun, adapter_of, load_as_left, merged_adapter, unlearned_model

Name = Literal["run", "gold", "vanilla"]
NAMES: tuple[Name, ...] = ("run", "gold", "vanilla")


@dataclass(frozen=True)
class Subject:
    """A model under attack.

    Attributes:
        name: ``run`` for the unlearned model.
        number: which gold model it is, from 1.
        source: run folder, folder of an adapter or of full weights, or hub id.
        folder: where its attempts are kept.
        weights: how they are loaded, of the type the run had.
        like: the run whose budgets it has; ``None`` for the usual ones.
        others: whom it is compared with, as far as they are known, without others of their own.
    """

    name: Name
    source: str
    folder: Path
    weights: Weights = Weights()
    like: FinishedRun | None = None
    number: int = 1
    others: "tuple[Subject, ...]" = ()

    @property
    def label(self) -> str:
        """What it is called in a record: ``gold`` for the first gold model, ``gold 2`` for the next."""
        return self.name if self.number == 1 else f"{self.name} {self.number}"

    def load(self, quantize: Quantize | None = None) -> MLLM:
        """The model with any adapter merged in, frozen, in evaluation mode, on the first GPU if there is one.

        Args:
            quantize: how bitsandbytes keeps the language model's linear layers; as they are by default.

        Raises:
            UserError: if there is no such model, or bitsandbytes cannot do that here.
        """
        if self.adapter is None or self.adapter != Path(self.source):
            full = unlearned_model(self.source, self.weights)
        elif quantize is None:  # away from the run that made it
            return self._ready(load_merged(self.adapter, self.weights))
        else:
            full = merged_adapter(self.adapter, self.weights)
        return self._ready(MLLM.load(full, replace(self.weights, quantize=quantize)))

    def load_with_adapter(self) -> MLLM | None:
        """The model with its adapter beside it, as the run left it; ``None`` if it has none."""
        return None if self.adapter is None else self._ready(load_as_left(self.source, self.weights))

    def _ready(self, mllm: MLLM) -> MLLM:
        mllm.requires_grad_(False)
        if self.like is not None:
            mllm.set_budgets(*self.like.budgets)
        return mllm.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @property
    def checkpointing(self) -> bool:
        """Whether training keeps only layer inputs for the backward pass."""
        return self.like is not None and self.like.option("model.init_args.engine.gradient_checkpointing", False)

    @property
    def adapter(self) -> Path | None:
        """The folder of its adapter, if it has one."""
        return adapter_of(self.source)

    def other(self, name: Name) -> "Subject":
        """Another one of the same comparison, or this one by its own name.

        Raises:
            UserError: if there is none.
        """
        found = next((one for one in (self, *self.others) if one.name == name), None)
        if found is None:
            raise UserError(f"--{name}: found none, expected the {name} model, which is needed beside {self.source}")
        return found

    def fingerprint(self) -> str:
        """Which weights these are."""
        return f"{_identity(str(self.adapter or self.source), self.adapter)}/{self.weights.dtype}"


@functools.cache
def _identity(source: str, files: Path | None) -> str:
    """The commit or hash of weights, which do not change while they are attacked."""
    found = identify_weights(source, files)
    return found["commit"] or found["fingerprint"] or source
