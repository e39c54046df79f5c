"""What a run does not say: log lines of libraries, harmless warnings, and what W&B would send of this machine."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from viker_lightning.storage.secrets import WANDB_TITLES, HidingFormatter

from .progress import quiet

VARIABLES = {
    "TOKENIZERS_PARALLELISM": "false",
    "JSONARGPARSE_DEPRECATION_WARNINGS": "off",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_X_DISABLE_META": "true",  # command line and remote may hold tokens
    "WANDB_DISABLE_GIT": "true",
}
"""Environment variables that are set unless the user has set them."""

OF_ONE_RUN = ("WANDB_JOB_TYPE", "WANDB_DATA_DIR", "WANDB_RUN_ID")
"""Environment variables that a run sets for itself."""

LIBRARIES = ("lightning", "lightning.pytorch", "transformers")
"""Whose log lines are shown from warnings on."""

HARMLESS = (
    "does not have many workers",
    "in eval mode at the start",
    "transfer_batch_to_device",
    "LeafSpec",
    "smaller than the logging interval",
    "across ranks is zero",
    "is_gradient_checkpointing",
    "predict returned None",
    "Previous log files in this directory will be deleted",  # metrics of an earlier part of the run are kept
)
"""Warnings that ask nothing of a user."""


class LogHandler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the moment: a progress bar that is shown puts itself in its place."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


def quieten() -> None:
    """Sets up logging, warnings and environment variables of this process."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each try to reach the hub, twice
    handler = LogHandler()
    handler.setFormatter(HidingFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    if quiet():
        transformers.utils.logging.disable_progress_bar()


def leave_out_unset(loggers: Iterable[Logger]) -> None:
    """Takes out what Lightning tells W&B though nobody has set it, since W&B warns of it: the setting ``anonymous``."""
    for logger in loggers:
        settings = getattr(logger, "_wandb_init", {})
        if "anonymous" in settings and settings["anonymous"] is None:
            del settings["anonymous"]


@contextmanager
def own_environment() -> Iterator[None]:
    """Puts back, in the end, the environment variables that are of one run."""
    given = {name: os.environ.get(name) for name in {*OF_ONE_RUN, *WANDB_TITLES}}
    try:
        yield
    finally:
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
