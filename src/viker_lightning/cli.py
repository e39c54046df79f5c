"""The command line: stock LightningCLI with OmegaConf interpolation and short class names."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from pickle import UnpicklingError
from traceback import format_exception
from typing import Any

import wandb
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from viker_lightning import methods  # noqa: F401 - makes short class names of methods known
from viker_lightning.callbacks import Evaluation, KnowledgeGate, Provenance, SaveConfig, SimilarityAudit
from viker_lightning.data import Benchmark
from viker_lightning.errors import UserError
from viker_lightning.secrets import HidingFormatter, hide
from viker_lightning.training.base import Stage

log = logging.getLogger(__name__)

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
            "init_args": {"save_dir": "${....default_root_dir}", "project": "viker-lightning", "offline": True},
        },
    ],
}


class CLI(LightningCLI):
    """fit, validate, test and predict."""

    def before_instantiate_classes(self) -> None:
        """Loads checkpoints as tensors only, unless somebody insists, and keeps the metrics of an earlier run."""
        config = self.config[self.config.subcommand]
        if config.get("weights_only") is None:
            config["weights_only"] = True
        checkpoint = config.get("ckpt_path")
        if checkpoint and checkpoint not in ("best", "last", "hpc", "registry") and not Path(checkpoint).exists():
            raise UserError(f"ckpt_path: {checkpoint} does not exist; give a checkpoint, or 'last'")
        run = Path(config.trainer.default_root_dir)
        if (run / "metrics.csv").is_file() and (checkpoint or self.config.subcommand != "fit"):
            earlier = run / f"metrics-{len(list(run.glob('metrics*.csv')))}.csv"
            (run / "metrics.csv").rename(earlier)  # the CSV logger would delete it
            log.info("%s: earlier metrics kept", earlier)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the callbacks every run has; their settings are ``audit``, ``gate``, ``evaluation``, ``checkpoint``."""
        parser.add_lightning_class_args(SimilarityAudit, "audit")
        parser.add_lightning_class_args(KnowledgeGate, "gate")
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {"checkpoint.save_last": True, "checkpoint.save_top_k": 0, "checkpoint.enable_version_counter": False}
        )


def main(args: ArgsType = None) -> None:
    """Runs the command line; errors a user can mend end in one line and exit code 1."""
    for name in ("lightning", "lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    handler = logging.StreamHandler()
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
    for harmless in ("smaller than the logging interval", "across ranks is zero", "is_gradient_checkpointing"):
        warnings.filterwarnings("ignore", message=f".*{harmless}.*")
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    try:
        CLI(
            model_class=Stage,
            datamodule_class=Benchmark,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={**DEFAULTS, "callbacks": [Provenance()]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"parser_mode": "omegaconf+"},
            args=args,
        )
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError | UnpicklingError):
            cause = cause.__cause__ or cause.__context__  # the parser wraps what a class refuses
        if cause is None:
            sys.excepthook = lambda *found: print(hide("".join(format_exception(*found))), file=sys.stderr, end="")
            raise
        if isinstance(cause, UnpicklingError):
            cause = UserError(
                "ckpt_path: this file holds more than tensors and plain values; opening it could run code, so it was "
                "not opened; give a checkpoint that this program wrote"
            )
        sys.exit(hide(f"error: {cause}"))
    finally:
        wandb.finish()
        wandb.teardown()  # waits for the writing process: an offline run is on disk only then
