"""The command line: stock LightningCLI with OmegaConf interpolation and short class names."""

import logging
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb
from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import override

from viker_lightning import look_here_last, methods
from viker_lightning.data.datasets import Benchmark
from viker_lightning.errors import UserError
from viker_lightning.jobs.processes import stop_with_parent
from viker_lightning.storage.packaged_configs import config_paths
from viker_lightning.storage.runs import (
    NothingToDo,
    checkpoint_to_start_from,
    first_process,
    folder,
    lock,
    names,
    wandb_run,
)
from viker_lightning.storage.secrets import hidden_warnings, hide_from_loggers, hide_in_tracebacks
from viker_lightning.storage.yaml_files import read_yamls
from viker_lightning.terminal.commands import COMMANDS, program
from viker_lightning.terminal.failures import ending, one_line
from viker_lightning.terminal.quiet import leave_out_unset, own_environment, quieten
from viker_lightning.training.base import Stage
from viker_lightning.training.callbacks import SaveConfig, Stopped, order
from viker_lightning.training.callbacks.wandb_dashboard import name_for_wandb

from . import options
from .check import Check
from .preview import Preview, Previewed

log = logging.getLogger(__name__)

PATIENCE = 120
"""Seconds a run that another one started waits for its folder: a killed process's run may still be saving there."""

IN_ADVANCE = ("preview", "check")
"""Commands with the options of fit that train nothing."""

BASES = {"model": Stage, "data": Benchmark}
CLASSES: dict[str, type] = {**BASES, "trainer.logger": Logger, "trainer.callbacks": Callback}
"""What an option takes subclasses of."""


class PreviewingTrainer(Trainer):
    """Lightning's trainer, which can also stop before the first step, or before the model is loaded.

    Attributes:
        checked: for check: the config of the run, its folder, and why this machine cannot make its trainer, if so.
    """

    checked: tuple[Namespace, Path, str]

    def preview(
        self,
        model: Stage,
        datamodule: Benchmark | None = None,
        questions: int = 4,
        ids: bool = False,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Shows the tokens that fit would train on.

        Args:
            model: what would be trained.
            datamodule: on which data.
            questions: how many questions of every stream are shown: those asked first.
            ids: whether every token stands with its id.
            ckpt_path: of a run that would be resumed; not looked at, what is shown are the first steps.
            weights_only: as of fit; not looked at.
        """
        self.callbacks = [Preview(questions, ids)]
        with suppress(Previewed):
            self.fit(model, datamodule=datamodule)

    def check(
        self,
        model: Stage,
        datamodule: Benchmark | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Says what a run would take, or what is wrong with it.

        Args:
            model: what would be trained.
            datamodule: on which data.
            ckpt_path: of a run that would be resumed; not looked at.
            weights_only: as of fit; not looked at.
        """
        assert datamodule is not None
        Check(self, model, datamodule, *self.checked).carry_out()


class CLI(LightningCLI):
    """fit, validate, test, predict, preview and check.

    Args:
        held: what is given back in the end: the run folder.
        patience: seconds to wait for the run folder.
        args: the command line; ``None`` for that of the process.
        arguments: of LightningCLI.
    """

    def __init__(self, held: ExitStack, patience: float, args: ArgsType, **arguments: Any) -> None:
        self.held, self.patience = held, patience
        self.command = next(iter(typed(args)), None)
        super().__init__(args=args, **arguments)

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        """The commands, and which arguments of the trainer's methods are no options."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in IN_ADVANCE}}

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Leaves the options of commands that were not typed out, for making them takes long.

        Those of fit, which preview and check have, too, are always there: one that is wrong may have been meant to be
        one of them.
        """
        needed = (self.command,) if self.command in IN_ADVANCE else ("fit", self.command)
        if self.command in COMMANDS and subcommand not in needed:
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for option, callback in order.OPTIONS.items():
            parser.add_lightning_class_args(callback, option)
        parser.link_arguments("evaluation.max_new_tokens", "gate.max_new_tokens")
        accumulated = next(one for one in parser._actions if one.dest == "trainer.accumulate_grad_batches")
        accumulated.help = (
            "Batches of a step, taken as one: means are over all of it, and the trainer counts one batch."
        )

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Says what is wrong with an option, or a YAML, in the one line of a UserError."""
        given = config_paths(typed(args))
        yamls = read_yamls(given, {name.partition(".")[0] for name in options.fit_options(parser) if "." in name})
        try:
            super().parse_arguments(parser, args)
        except (options.Refused, OmegaConfBaseException) as error:
            classes = options.class_names(CLASSES)
            classes["model.method"] = methods.NAMES
            command_line = options.CommandLine(given, yamls, options.every_option(parser, BASES), classes)
            raise UserError(command_line.explain(error)) from error
        options.check_run(self.config[self.config.subcommand])
        if self.config.subcommand == "fit":
            options.check_end(self.config.fit.trainer)

    @override
    def before_instantiate_classes(self) -> None:
        """Takes the run folder, and finds the checkpoint to start from, which is loaded as tensors only."""
        command = self.config.subcommand
        config = self.config[command]
        trainer, run = config.trainer, Path(config.trainer.default_root_dir)
        config["weights_only"] = True
        if command in ("fit", *IN_ADVANCE):
            read = [item for item in config.items() if item[0].startswith(("model.", "data.", "evaluation."))]
            folder.check_inputs(run, [(name.replace(".init_args", ""), value) for name, value in read])
        if command in IN_ADVANCE:  # nothing that a run writes is left: not even what its data say of bad rows
            self.run = run
            empty = self.held.enter_context(TemporaryDirectory(prefix="viker-lightning-"))
            nothing = {"logger": False, "callbacks": None, "enable_checkpointing": False, "enable_progress_bar": False}
            trainer.update(Namespace(default_root_dir=empty, **nothing))
            config["ckpt_path"] = None
            return
        if first_process():
            self.held.callback(lock(run, self.patience).release)
        limits = trainer.max_steps, trainer.max_epochs
        config["ckpt_path"] = checkpoint_to_start_from(run, command, config.get("ckpt_path"), *limits)
        name_for_wandb(command, config, run)
        hide_from_loggers(trainer.get("logger"))

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Puts the first callbacks first; our progress bar is one if none was chosen and somebody watches."""
        trainer = self.config_init[self.config_init.subcommand].trainer
        if self.config_init.subcommand == "preview":
            return self.trainer_class(**trainer)
        if self.config_init.subcommand == "check":
            return self._trainer_to_check(trainer)
        callbacks = order.with_first(trainer.callbacks, trainer.enable_progress_bar)
        if not any(isinstance(callback, ProgressBar) for callback in callbacks):
            kwargs["enable_progress_bar"] = False
        try:
            made = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except ValueError as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        leave_out_unset(made.loggers)
        return made

    def _trainer_to_check(self, options: Namespace) -> PreviewingTrainer:
        """The trainer, or, where this machine has not what it needs, one on the CPU that says so."""
        unfit = ""
        try:
            made = PreviewingTrainer(**options)
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            unfit = f"trainer: {' '.join(str(error).split())}"
            plain = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
            made = PreviewingTrainer(**{**options, **plain})
        made.checked = self.config[self.config.subcommand], self.run, unfit
        return made

    @override
    def after_instantiate_classes(self) -> None:
        """Makes room in the run folder and loses nothing, now that no option can be wrong any more."""
        if not first_process():
            return
        if self.config.subcommand == "check":  # says it among other things
            return
        self.datamodule.prepare_data()  # data that are not there are an option that is wrong
        if self.config.subcommand == "preview":
            return
        config, fit = self.config[self.config.subcommand], self.config.subcommand == "fit"
        run = Path(config.trainer.default_root_dir)
        if fit and config["ckpt_path"] is None:
            folder.set_aside(run)
        else:  # it adds to what is there
            folder.clear(run)
            folder.keep_earlier(run, names.METRICS)  # the CSV logger would delete it
        if fit and (earlier := wandb_run(run)):
            os.environ.setdefault("WANDB_RUN_ID", earlier)

    @override
    def _parse_ckpt_path(self) -> None:
        """Does nothing: settings come from the config and the command line alone."""


def typed(args: ArgsType) -> list[str]:
    """The words of the command line."""
    return sys.argv[1:] if args is None else args if isinstance(args, list) else []


def main(args: ArgsType = None) -> None:
    """Runs the command line; errors a user can fix end in one line and exit code 1."""
    patience = PATIENCE if stop_with_parent() else 0
    look_here_last()
    quieten()
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    with own_environment(), hidden_warnings(), ExitStack() as held:
        try:
            CLI(
                held,
                patience,
                model_class=Stage,
                datamodule_class=Benchmark,
                trainer_class=PreviewingTrainer,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                trainer_defaults={**order.trainer_defaults(), "callbacks": [kind() for kind in order.LAST]},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_class=options.Parser,
                load_from_checkpoint_support=False,
                parser_kwargs={
                    "parser_mode": "omegaconf+",
                    "prog": program(),
                    "description": "Make a multimodal language model forget people, and show that it has.",
                    **{name: {"description": text} for name, text in COMMANDS.items()},
                },
                args=args,
            )
        except NothingToDo as found:
            log.info("%s", found)
        except Stopped as stopped:
            print(stopped.line, file=sys.stderr)
            raise
        except KeyboardInterrupt:
            resumes = "; --ckpt_path last resumes from what was saved, if anything was" if "fit" in typed(args) else ""
            sys.exit(f"stopped{resumes}")
        except (Exception, SystemExit) as error:
            if (line := one_line(error)) is None:
                hide_in_tracebacks()
                raise
            sys.exit(ending(line))
        finally:
            wandb.finish()
            wandb.teardown()  # waits for the writing process: an offline run is on disk only then
