"""A run's folder: names, lock, what was set aside, whether it is finished, checkpoints, reading and writing."""

from .checkpoint import CheckpointFile, rng_state, set_rng_state
from .folder import finished, first_process, keep_metrics, last_checkpoint, lock, set_aside, wandb_run
from .read import Run, read_run

__all__ = [
    "CheckpointFile",
    "Run",
    "finished",
    "first_process",
    "keep_metrics",
    "last_checkpoint",
    "lock",
    "read_run",
    "rng_state",
    "set_aside",
    "set_rng_state",
    "wandb_run",
]
