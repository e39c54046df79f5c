"""A run's folder: names, lock, what is set aside, resuming, checkpoints, reading and writing."""

from .checkpoint_file import CheckpointFile, rng_state, set_rng_state
from .folder import first_process, keep_earlier, lock, set_aside, wandb_run
from .names import is_finished, weights_folder
from .read import Run, read_run, requests_of
from .resume import NothingToDo, checkpoint_to_start_from, last_checkpoint
