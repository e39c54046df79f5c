"""A run's folder: names, lock, what is set aside, resuming, checkpoints, reading and writing."""

from .checkpoint_file import CheckpointFile, rng_state, set_rng_state
from .folder import first_process, keep_earlier, lock, set_aside, wandb_run
from .names import is_finished, weights_folder
from .read import Run, read_run, requests_of
from .resume import NothingToDo, checkpoint_to_start_from, last_checkpoint

__all__ = [
    "CheckpointFile",
    "NothingToDo",
    "Run",
    "checkpoint_to_start_from",
    "first_process",
    "is_finished",
    "keep_earlier",
    "last_checkpoint",
    "lock",
    "read_run",
    "requests_of",
    "rng_state",
    "set_aside",
    "set_rng_state",
    "wandb_run",
    "weights_folder",
]
