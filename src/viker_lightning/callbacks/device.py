"""Where a trained model is when it is evaluated."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy


def back_on_device(trainer: Trainer, pl_module: Any) -> None:
    """Moves a model back to the GPU: Lightning takes it to the CPU before ``on_fit_end``, unless it is shared out."""
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        pl_module.to(trainer.strategy.root_device)
