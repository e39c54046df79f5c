"""Progress of a run: questions a second, time left, and the three headline numbers; less where is no terminal."""

import math
import time
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from typing_extensions import override

from viker_lightning.data.records import ImageGroup
from viker_lightning.reporting import arrow, headline
from viker_lightning.terminal.progress import Bar
from viker_lightning.training.base import Stage

from .evaluation import Evaluation
from .trainer_parts import callbacks_of

LOOKS = 0.5
"""Seconds between two looks at a step's numbers: each look waits for the GPU."""


class TerminalProgress(ProgressBar):
    """A line for training, validate, test or predict, and below it how much is forgotten, kept, and how fluent.

    The headline numbers are those of the newest evaluation. While training goes on, what the running step saw stands
    in for the first two: the probability of an answer token of its forget and retain questions (geometric mean). The
    line says which is which.

    Shown by the first process alone; ``trainer.enable_progress_bar=false`` turns it off. Where there is no terminal, a
    line now and then says how far it is.

    Args:
        console: where to; by default standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console, self._enabled, self._looked = console, True, -LOOKS
        self._bar: Bar | None = None

    @override
    def disable(self) -> None:
        """Shows nothing; Lightning calls this in all processes but the first."""
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        self._start("training", int(steps) if math.isfinite(steps) else None, trainer.global_step)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: Stage, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._bar is None:
            return
        self._bar.advance(1, pl_module.step.questions * trainer.world_size)
        if time.monotonic() - self._looked >= LOOKS:
            self._looked = time.monotonic()
            self._bar.say(training_note(seen(pl_module.step.logged), *self._newest(trainer)))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the line away; the evaluation that follows has its own."""
        self._stop()

    on_validation_end = on_train_end
    on_test_end = on_train_end
    on_predict_end = on_train_end

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("validate", _all(trainer.num_val_batches))

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test", _all(trainer.num_test_batches))

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("predict", _all(trainer.num_predict_batches))

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.advance(1, questions(batch.content) * trainer.world_size)

    on_test_batch_end = on_validation_batch_end
    on_predict_batch_end = on_validation_batch_end

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the line away, so that what went wrong can be read."""
        self._stop()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def _start(self, title: str, total: int | None, done: int = 0) -> None:
        self._stop()
        self._bar = Bar(title, total, "questions", done, self._enabled, self._console)
        self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _newest(self, trainer: Trainer) -> tuple[str, dict[str, Any]]:
        """When the newest evaluation was, and what it found; empty if there was none."""
        for evaluation in callbacks_of(trainer, Evaluation):
            if evaluation.summaries:
                return list(evaluation.summaries.items())[-1]
        return "", {}


def seen(measured: dict[str, Any]) -> dict[str, float]:
    """Mean log-probability of an answer token of a step's questions, by stream; a step may see one of them only.

    What was logged of this step is looked at: Lightning's own metrics keep those of earlier steps.
    """
    streams = ("forget", "retain")
    return {stream: -float(measured[f"{stream}_ce"]) for stream in streams if f"{stream}_ce" in measured}


def training_note(batch: dict[str, float], when: str, summary: dict[str, dict[str, float]]) -> str:
    """The headline numbers in training: of the running step's log-probabilities, the rest of the newest evaluation."""
    said = [f"{stream} {arrow(stream, 'answer_probability')} {math.exp(value):.2f}" for stream, value in batch.items()]
    found = [" · ".join(said) + " (token probability, this step)"] if said else []
    rest = {name: text for name, text in headline(summary).items() if name not in batch}
    return " · ".join(found + ([" · ".join(rest.values()) + f" ({when})"] if rest else []))


def questions(content: Iterable[Any]) -> int:
    """How many questions an evaluation batch asks: open ones, clozes, multiple choice."""
    return sum(
        len(group.vqa) + len(group.clozes) + len(group.choices) if isinstance(group, ImageGroup) else len(group)
        for group in content
    )


def _all(batches: Any) -> int | None:
    total = sum(batches) if isinstance(batches, list) else batches
    return int(total) if math.isfinite(total) else None
