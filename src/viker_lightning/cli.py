"""The command line: stock LightningCLI with OmegaConf interpolation and short class names."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from traceback import format_exception
from typing import Any

import transformers
import wandb
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from omegaconf.errors import OmegaConfBaseException

from viker_lightning import methods
from viker_lightning.callbacks import (
    Answers,
    Checkpoint,
    CollapseGuard,
    Dashboard,
    Evaluation,
    KnowledgeGate,
    Provenance,
    Report,
    SaveConfig,
    Signals,
    SimilarityAudit,
    Stopped,
    TerminalProgress,
)
from viker_lightning.datasets import Benchmark
from viker_lightning.errors import UserError, unmade
from viker_lightning.options import (
    Parser,
    Refused,
    check_run,
    explain,
    interpolation,
    option_names,
    read_yamls,
    subclasses,
)
from viker_lightning.processes import stop_with_parent
from viker_lightning.progress import quiet
from viker_lightning.runs import (
    NothingToDo,
    checkpoint_to_start_from,
    first_process,
    keep_metrics,
    lock,
    set_aside,
    wandb_run,
)
from viker_lightning.secrets import HidingFormatter, hidden_warnings, hide, hide_arguments, hide_in
from viker_lightning.training.base import Stage

log = logging.getLogger(__name__)

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says where nothing can be written."""

OFFLINE = "WANDB_SWEEP_ID" not in os.environ
"""Whether W&B's server hears nothing by default; a run that an agent starts is shown on the page of its sweep."""

DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs/run",
    "use_distributed_sampler": False,  # the datamodule shards, without repeating a sample
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "logger": [
        {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": "${....default_root_dir}", "name": "", "version": ""},
        },
        {
            "class_path": "lightning.pytorch.loggers.WandbLogger",
            "init_args": {"save_dir": "${....default_root_dir}", "project": "viker-lightning", "offline": OFFLINE},
        },
    ],
}
"""Trainer options that differ from Lightning's.

Loggers are Lightning's own and are replaced as a whole: ``--trainer.logger false`` for none, or a list of any in the
YAML (or as JSON on the command line), e.g. ``[{"class_path": "TensorBoardLogger", "init_args": {"save_dir": "x"}}]``
(extra ``tensorboard``). Without a CSVLogger there is no ``metrics.csv``, from which reports draw their curves;
everything else in a run folder is there without any logger.
"""

FOR_WANDB = ("WANDB_JOB_TYPE", "WANDB_DATA_DIR", "WANDB_RUN_ID")
"""Environment variables that are of one run."""

WORDS = ("name", "notes", "tags", "group", "job_type", "config")
"""Arguments of loggers that are shown to people."""

WANDB_WORDS = ("WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE")
"""The same as environment variables of W&B."""


PATIENCE = 120
"""Seconds a run that another one started waits for its folder: a killed process's run may still be saving there."""


class LogHandler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the moment: a progress bar that is shown puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """As usual."""
        self.setStream(sys.stderr)
        super().emit(record)


class CLI(LightningCLI):
    """fit, validate, test and predict.

    Args:
        held: what is given back in the end: the run folder.
        patience: seconds to wait for the run folder.
        options: of LightningCLI.
    """

    def __init__(self, held: ExitStack, patience: float, **options: Any) -> None:
        self.held, self.patience = held, patience
        super().__init__(**options)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """As usual; what is wrong is said in one line.

        Raises:
            UserError: if an option, or a YAML, is not as it must be.
        """
        given = sys.argv[1:] if args is None else args if isinstance(args, list) else []
        yamls = read_yamls(given, {name.partition(".")[0] for name in typed_options(parser) if "." in name})
        try:
            super().parse_arguments(parser, args)
        except Refused as refused:
            raise UserError(
                explain(hide_arguments(str(refused)), given, yamls, known_options(parser), known_classes())
            ) from refused
        except OmegaConfBaseException as error:
            raise UserError(interpolation(error, given, yamls, known_options(parser))) from error
        check_run(self.config[self.config.subcommand])

    def before_instantiate_classes(self) -> None:
        """Loads checkpoints as tensors only and finds the one to start from.

        Raises:
            UserError: if a checkpoint is to be unpickled, or there is none.
        """
        command = self.config.subcommand
        config = self.config[command]
        if config.get("weights_only") is False:
            raise UserError(
                "weights_only: found false, but nothing is unpickled, since that can run code; leave it out"
            )
        config["weights_only"] = True
        run = Path(config.trainer.default_root_dir)
        if first_process():
            self.held.callback(lock(run, self.patience).release)
        trainer = config.trainer
        config["ckpt_path"] = checkpoint_to_start_from(
            run, command, config.get("ckpt_path"), trainer.max_steps, trainer.max_epochs
        )
        os.environ.setdefault("WANDB_JOB_TYPE", job_type(command, config))
        hide_from_loggers(config.trainer.get("logger"))
        os.environ.setdefault("WANDB_DATA_DIR", str(run.resolve() / "wandb"))  # where pictures of a table wait

    def after_instantiate_classes(self) -> None:
        """Makes room in the run folder, now that no option can be wrong any more."""
        command = self.config.subcommand
        config = self.config[command]
        run = Path(config.trainer.default_root_dir)
        if not first_process():
            return
        self.datamodule.prepare_data()  # data that are not there are an option that is wrong
        if command == "fit" and config["ckpt_path"] is None:
            set_aside(run)
        else:
            keep_metrics(run)
            if command == "fit" and (known := wandb_run(run)):
                os.environ.setdefault("WANDB_RUN_ID", known)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """As usual, signals and progress before all other callbacks; what is not understood is said in one line.

        Raises:
            UserError: if an option is wrong.
        """
        try:
            return super().instantiate_trainer(**self._first(), **kwargs)
        except ValueError as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error

    def _first(self) -> dict[str, Any]:
        """The callbacks that come first; our progress bar is one if none was chosen and somebody watches."""
        trainer = self.config_init[self.config_init.subcommand].trainer
        callbacks = trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if any(isinstance(callback, ProgressBar) for callback in callbacks):
            return {"callbacks": [Signals(), *callbacks]}
        if trainer.enable_progress_bar is False or quiet():
            return {"callbacks": [Signals(), *callbacks], "enable_progress_bar": False}
        return {"callbacks": [Signals(), TerminalProgress(), *callbacks]}

    def _parse_ckpt_path(self) -> None:
        """Does nothing: settings come from the config and the command line alone."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds callbacks: ``audit``, ``gate``, ``guard``, ``evaluation``, ``answers``, ``report``, ``checkpoint``."""
        parser.add_lightning_class_args(SimilarityAudit, "audit")
        parser.add_lightning_class_args(KnowledgeGate, "gate")
        parser.add_lightning_class_args(CollapseGuard, "guard")
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(Answers, "answers")
        parser.add_lightning_class_args(Report, "report")
        parser.add_lightning_class_args(Checkpoint, "checkpoint")


def hide_from_loggers(loggers: Any) -> None:
    """Takes secrets out of what loggers show to people: name, notes, tags and so on, which W&B keeps in its files.

    Args:
        loggers: what ``trainer.logger`` is in a config; changed in place.
    """
    for name in WANDB_WORDS:
        if name in os.environ:
            os.environ[name] = hide(os.environ[name])
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        for part in ("init_args", "dict_kwargs") if hasattr(logger, "get") else ():
            arguments = logger.get(part) or {}
            for word in WORDS:
                if arguments.get(word) is not None:
                    arguments[word] = hide_in(arguments[word])


def job_type(command: str, config: Any) -> str:
    """Under what W&B files a run, if neither the environment nor the logger's ``job_type`` says so.

    Args:
        command: of the command line.
        config: of this command.

    Returns:
        The class of the method for an unlearning run, ``vanilla`` or ``gold`` for another fit, else the command.
    """
    if command != "fit":
        return command
    method = config.get("model.init_args.method.class_path")
    return method.rpartition(".")[2] if method else str(config.get("data.init_args.stage", command))


def typed_options(parser: Any) -> list[str]:
    """The options that fit has, whatever the model and the data are, as they are typed without dashes."""
    return [action.dest for action in parser._subcommands_action.choices["fit"]._actions]


def known_options(parser: Any) -> list[str]:
    """Every option there is, as it is typed without dashes."""
    return [*typed_options(parser), *option_names("model", Stage), *option_names("data", Benchmark)]


def known_classes() -> dict[str, list[str]]:
    """Short names of the classes that an option takes."""
    taken = {"model": Stage, "data": Benchmark, "trainer.logger": Logger, "trainer.callbacks": Callback}
    listed = {option: sorted(one.__name__ for one in subclasses(of)) for option, of in taken.items()}
    return listed | {"model.method": [name for name in methods.__all__ if name not in ("Batch", "Method")]}


def what_to_do(error: OSError) -> str:
    """What mends an error of :data:`UNWRITABLE`: it may be one of reading, too, of a file that is there."""
    file, forbidden = error.filename, error.errno in (errno.EACCES, errno.EPERM)
    if forbidden and file is not None and os.path.exists(file) and not os.access(file, os.R_OK):
        return "make it readable, or give another"
    remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
    return f"{remedy}, then go on with --ckpt_path last: what was saved is intact"


def main(args: ArgsType = None) -> None:
    """Runs the command line; errors a user can mend end in one line and exit code 1."""
    patience = PATIENCE if stop_with_parent() else 0
    if not {"", os.getcwd()} & set(sys.path):  # with -m Python looks here by itself: for a method of yours
        sys.path.insert(0, os.getcwd())
    for name in ("lightning", "lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    handler = LogHandler()
    handler.setFormatter(HidingFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    for unseen in ("WANDB_X_DISABLE_META", "WANDB_DISABLE_GIT"):  # command line and remote may hold tokens
        os.environ.setdefault(unseen, "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for harmless in ("does not have many workers", "in eval mode at the start", "transfer_batch_to_device", "LeafSpec"):
        warnings.filterwarnings("ignore", message=f".*{harmless}.*")
    for harmless in (
        "smaller than the logging interval",
        "across ranks is zero",
        "is_gradient_checkpointing",
        "predict returned None",
    ):
        warnings.filterwarnings("ignore", message=f".*{harmless}.*")
    if quiet():
        transformers.utils.logging.disable_progress_bar()
    given = {name: os.environ.get(name) for name in {*FOR_WANDB, *WANDB_WORDS}}
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    held = ExitStack()
    held.enter_context(hidden_warnings())
    try:
        CLI(
            held,
            patience,
            model_class=Stage,
            datamodule_class=Benchmark,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={**DEFAULTS, "callbacks": [Provenance(), Dashboard()]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            load_from_checkpoint_support=False,
            parser_kwargs={"parser_mode": "omegaconf+"},
            args=args,
        )
    except NothingToDo as found:
        log.info("%s", found)
    except Stopped as stopped:
        print(stopped.line, file=sys.stderr)
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            sys.exit(hide(f"error: {error}; {what_to_do(error)}"))
        if isinstance(error, MisconfigurationException):  # of the trainer: no GPU, two options at odds
            sys.exit(
                hide(f"error: trainer: {' '.join(str(error).split())}; see configs/trainer for what fits together")
            )
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):  # the parser wraps what a class refuses
            cause = cause.__cause__ or cause.__context__
        if cause is None and (line := unmade(error)):
            cause = UserError(line)
        if cause is None:
            sys.excepthook = lambda *found: print(hide("".join(format_exception(*found))), file=sys.stderr, end="")
            raise
        sys.exit(hide(f"error: {cause}"))
    finally:
        wandb.finish()
        wandb.teardown()  # waits for the writing process: an offline run is on disk only then
        held.close()
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)
            elif name in WANDB_WORDS:
                os.environ[name] = value
