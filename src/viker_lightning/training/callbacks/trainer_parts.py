"""What callbacks ask of a trainer, with types: the data, the run folder, other callbacks, other processes."""

from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from viker_lightning.data.datasets import Benchmark

Found = TypeVar("Found")
Kind = TypeVar("Kind", bound=Callback)


def data_of(trainer: Trainer) -> Benchmark:
    """The data of the run."""
    data: Benchmark = trainer.datamodule  # type: ignore[attr-defined]
    return data


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run."""
    return Path(trainer.default_root_dir)


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """The callbacks of a kind, in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def gathered(trainer: Trainer, found: list[Found]) -> list[Found]:
    """What all processes found, by rank; every process calls this."""
    if trainer.world_size == 1:
        return found
    parts: list[list[Found]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(parts, found)
    return [*chain(*parts)]


def back_on_device(trainer: Trainer, pl_module: LightningModule) -> None:
    """Moves a model back to the GPU: Lightning takes it to the CPU before ``on_fit_end``, unless it is shared out."""
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        pl_module.to(trainer.strategy.root_device)
