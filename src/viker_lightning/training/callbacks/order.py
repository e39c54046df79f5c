"""Which callbacks a run has and in which order, each hook from first to last; and what its trainer has by default."""

import os
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from viker_lightning.terminal.progress import silent

from .checkpoint import Checkpoint, Signals
from .collapse_guard import CollapseGuard
from .evaluation import Evaluation
from .knowledge_gate import KnowledgeGate
from .predict_answers import Answers
from .provenance import Provenance
from .report import Report
from .similarity_audit import SimilarityAudit
from .terminal_progress import TerminalProgress
from .wandb_dashboard import Dashboard

FIRST: tuple[type[Callback], ...] = (
    Signals,  # a signal that comes while another one evaluates must find Checkpoint listening
    TerminalProgress,  # takes its line away before an evaluation shows its own
)
"""Before any callback of a user's."""

OPTIONS: dict[str, type[Callback]] = {
    "audit": SimilarityAudit,  # looks at pictures only, so before anything is asked or trained
    "gate": KnowledgeGate,  # stops a run before it is evaluated; Evaluation writes what it reports into results.json
    "guard": CollapseGuard,  # stops a run, or puts good weights back, before Evaluation asks and Checkpoint saves
    "evaluation": Evaluation,  # writes answers and numbers, which all that follow read
    "answers": Answers,
    "report": Report,  # reads the run folder as Evaluation left it
    "checkpoint": Checkpoint,  # Lightning moves it to the very end: what all others have measured is saved with it
}
"""Those with options, by name of the option."""

LAST: tuple[type[Callback], ...] = (
    Provenance,  # records which weights audit and evaluation used
    Dashboard,  # shows W&B the run folder as Evaluation and Report left it
)
"""After those; Lightning adds SaveConfig and moves Checkpoint behind all."""


def with_first(given: list[Callback] | Callback | None, shown: bool | None) -> list[Callback]:
    """The callbacks that a user gives, with ours before them.

    Our progress bar is one, unless a user's is, nothing is to be said, or ``trainer.enable_progress_bar`` is false.
    """
    given = given if isinstance(given, list) else [given] if given else []
    bar = shown is not False and not silent() and not any(isinstance(callback, ProgressBar) for callback in given)
    return [*(kind() for kind in FIRST if bar or kind is not TerminalProgress), *given]


def trainer_defaults() -> dict[str, Any]:
    """Trainer options that differ from Lightning's.

    Loggers are Lightning's own and are replaced as a whole: ``--trainer.logger false`` for none, or a list of any in
    the YAML (or as JSON on the command line), e.g. ``[{"class_path": "TensorBoardLogger", "init_args": {"save_dir":
    "x"}}]`` (extra ``tensorboard``). Without a CSVLogger there is no ``metrics.csv``, from which reports draw their
    curves; everything else in a run folder is there without any logger. W&B's server hears nothing by default, but of a
    run that an agent starts, which is shown on the page of its sweep.
    """
    folder, offline = "${....default_root_dir}", "WANDB_SWEEP_ID" not in os.environ
    csv = {"save_dir": folder, "name": "", "version": ""}
    board = {"save_dir": folder, "project": "viker-lightning", "offline": offline}
    return {
        "default_root_dir": "runs/run",
        "use_distributed_sampler": False,  # the datamodule shards, without repeating a sample
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 10,
        "logger": [
            {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": csv},
            {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": board},
        ],
    }
