"""What W&B gets besides the logged values and the config: definitions, final numbers, and fixed probe questions."""

import base64
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from viker_lightning.data.image_files import pixels
from viker_lightning.metrics import Number
from viker_lightning.reporting import probe_rows, token_page, token_views
from viker_lightning.storage.runs import Run, names
from viker_lightning.training.base import Stage

from .report import Report
from .trainer_parts import callbacks_of, run_folder

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
UNSEEN = ("epoch", "lr-*", "key_tokens/*")
"""Logged values that make no chart by themselves: counters, and what is measured once."""

NO_NUMBERS = ("metrics", "people", "sums", "key_token_example")
"""Parts of ``results.json`` that say what numbers mean, or tell people apart."""


class Dashboard(Callback):
    """Tells W&B how values are to be read, shows it fixed probe questions, and ends the summary with the results.

    It reads the run folder and does nothing without a W&B logger. The summary gets ``before/<split>/<metric>``,
    ``after/<split>/<metric>`` and the other numbers of ``results.json`` under their path in the file.
    ``probes/answers`` is a table of :func:`~viker_lightning.reporting.probe_rows`, before training and at the end;
    ``probes/key_tokens`` is one page with the forget answers of the report token by token. ``report.to_wandb: false``
    leaves both out. A run never fails for it: what goes wrong is a warning.
    """

    @override
    def setup(self, trainer: Trainer, pl_module: Stage, stage: str) -> None:
        """Defines what every run logs; see :func:`define` for what is measured."""
        for logger in boards(trainer):
            logger.experiment.define_metric("train/*", step_metric=STEP, summary="last")
            for name in UNSEEN:
                logger.experiment.define_metric(name, step_metric=STEP, summary="last", hidden=True)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        """Shows the probe questions with the answers before training, if these were evaluated."""
        self._show(trainer)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._show(trainer, "fit")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._show(trainer, "validate")

    @override
    def on_test_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._show(trainer, "test")

    def _show(self, trainer: Trainer, ended: str | None = None) -> None:
        """Logs the probe questions of a fit as far as they are answered, and what a command that has ended found."""
        run = run_folder(trainer)
        shown = all(report.to_wandb for report in callbacks_of(trainer, Report))
        for logger in boards(trainer):
            try:
                if shown and trainer.state.fn == TrainerFn.FITTING:
                    for name, value in probes(Run(run, {})).items():
                        logger.experiment.log({name: value, STEP: trainer.global_step})
                results = run / names.of_command(names.RESULTS, ended)
                if ended and results.is_file():
                    numbers = final_numbers(json.loads(results.read_text(encoding="utf-8")))
                    logger.experiment.summary.update(dict(numbers))
            except Exception as error:
                log.warning("%s: W&B lacks some of it (%s: %s)", run, type(error).__name__, error)


def boards(trainer: Trainer) -> list[WandbLogger]:
    """The W&B loggers of a run; none but on the first process."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)] if trainer.is_global_zero else []


def define(logger: Logger, names: Iterable[str], numbers: Mapping[str, Number]) -> None:
    """Tells W&B about evaluated values, before they are logged; other loggers need no telling.

    Args:
        logger: of a run.
        names: ``<split>/<metric>``. Over the optimizer steps, the summary keeps the last value, and the lowest or the
            highest where one of them is good; near gold is neither.
        numbers: what each metric is, by name.
    """
    if isinstance(logger, WandbLogger):
        for name in names:
            *group, split, metric = name.split("/")
            number = numbers.get(group[0] if group else metric)
            best = number.better(split) if number else None
            summary = f"last,{best}" if best in ("min", "max") else "last"
            logger.experiment.define_metric(name, step_metric=STEP, summary=summary, hidden=metric == "n")


def probes(run: Run) -> dict[str, Any]:
    """What W&B shows of the probe questions: a table, and a page of key tokens; empty before anything is answered."""
    found: dict[str, Any] = {}
    if not (run.folder / names.PREDICTIONS).is_file():
        return found
    if rows := probe_rows(run):
        found["probes/answers"] = wandb.Table([*rows[0]], [cells(row) for row in rows])
    if views := token_views(run):
        found["probes/key_tokens"] = wandb.Html(token_page(views), inject=False)
    return found


def cells(row: dict[str, Any]) -> list[Any]:
    """A row of probe questions as W&B shows it."""
    picture, page = row["picture"], row["key_tokens"]
    shown = dict(row)
    if picture:
        shown["picture"] = wandb.Image(pixels(base64.b64decode(picture.partition(",")[2])))
    if page:
        shown["key_tokens"] = wandb.Html(page, inject=False)
    return [*shown.values()]


def final_numbers(results: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and short texts of ``results.json`` with their path in it; those of single epochs are in the history."""
    for name, value in results.items():
        if isinstance(value, dict) and name not in NO_NUMBERS and not name.startswith("epoch "):
            yield from final_numbers(value, f"{path}{name}/")
        elif isinstance(value, int | float | str):
            yield f"{path}{name}", value


def name_for_wandb(command: str, config: Any, run: Path) -> None:
    """Says to W&B, unless the environment does, what a run is and where its files wait."""
    os.environ.setdefault("WANDB_JOB_TYPE", job_type(command, config))
    os.environ.setdefault("WANDB_NAME", str(run))
    os.environ.setdefault("WANDB_DATA_DIR", str(run.resolve() / "wandb"))  # where pictures of a table wait


def job_type(command: str, config: Any) -> str:
    """Under what W&B files a run, if neither the environment nor the logger's ``job_type`` says so.

    The class of the method for an unlearning run, ``vanilla`` or ``gold`` for another fit, else the command.
    """
    if command != "fit":
        return command
    method = config.get("model.init_args.method.class_path")
    return method.rpartition(".")[2] if method else str(config.get("data.init_args.stage", command))
