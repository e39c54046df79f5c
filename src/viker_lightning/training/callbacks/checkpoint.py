"""Checkpoints a run resumes from as if nothing had happened, and signals that ask it to stop."""

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerStatus
from typing_extensions import override

from viker_lightning.storage.runs import CheckpointFile, last_checkpoint, names, rng_state, set_rng_state
from viker_lightning.training.base import Stage

from .evaluation import Evaluation
from .trainer_parts import callbacks_of, gathered, run_folder

log = logging.getLogger(__name__)

REQUEUE: int = getattr(signal, "SIGUSR1", 0)
"""Has Lightning save and requeue a job on SLURM; 0 where there is no such signal."""


class Stopped(SystemExit):
    """A signal asked the run to stop; what it had learned is in the checkpoint.

    Args:
        number: of the signal. The exit code is 128 more, as shells have it.
        step: optimizer steps taken.
        checkpoint: what to resume from, if there is anything yet.
        last: whether ``--ckpt_path last`` finds it.
    """

    def __init__(self, number: int, step: int, checkpoint: Path | None, last: bool = True) -> None:
        option = "last" if last else checkpoint
        what = f"{checkpoint} holds everything: resume with the same command and --ckpt_path {option}"
        what = what if checkpoint else "nothing was trained yet"
        self.line = f"stopped by {signal.Signals(number).name} after step {step}; {what}"
        super().__init__(128 + number)


class Checkpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt``: trained weights, optimizer, place in the epoch, random numbers, measurements.

    It is written when training starts (after the evaluation before it), every so many steps, before an evaluation, at
    the end, and on SIGTERM or Ctrl-C, after the running step. A second Ctrl-C does not wait. A run resumed from it
    takes the steps it would have taken anyway; on several processes, or where more than 256 MiB are known of a frozen
    model, up to rounding (:meth:`~viker_lightning.training.Unlearn.on_save_checkpoint`). On SLURM, SIGUSR1 waits for
    the running step, too; then Lightning saves and requeues the job.

    Args:
        every_n_train_steps: steps between two checkpoints.
        save_top_k: further checkpoints, one each time: 0 for none, -1 for all, or the best by ``monitor``.
        monitor: name of a logged value, for ``save_top_k``.
        mode: whether a small (``min``) or large (``max``) value of ``monitor`` is good.
        filename: of further checkpoints, e.g. ``{epoch}-{step}``.
        dirpath: where to; ``checkpoints`` in the run folder by default.
    """

    def __init__(
        self,
        every_n_train_steps: int = 50,
        save_top_k: int = 0,
        monitor: str | None = None,
        mode: str = "min",
        filename: str | None = None,
        dirpath: str | None = None,
    ) -> None:
        super().__init__(
            dirpath,
            filename,
            monitor,
            save_last=True,
            save_top_k=save_top_k,
            mode=mode,
            every_n_train_steps=every_n_train_steps,
            enable_version_counter=False,
        )
        self._rng: list[dict[str, Any]] = []  # of every process, until the first step of a resumed run
        self._saved = -1  # the step of the newest checkpoint
        self._newest: Path | None = None
        self._signal: int | None = None  # the signal that asked to stop
        self._stepping = False
        self._trained = False  # no step is left
        self._trainer: Trainer | None = None
        self._former: dict[int, Any] = {}  # who listened to signals before

    @override
    def setup(self, trainer: Trainer, pl_module: Stage, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = str(run_folder(trainer) / names.CHECKPOINTS)
        super().setup(trainer, pl_module, stage)
        trainer.strategy.checkpoint_io = CheckpointFile()
        if stage == "fit":
            self._trainer = trainer
            self.listen()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        """Saves what was measured before training."""
        super().on_train_start(trainer, pl_module)
        self.listen()
        if trainer.ckpt_path is None:
            self._save(trainer)
        else:
            self._saved = trainer.global_step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: Stage, batch: Any, batch_idx: int) -> None:
        """Puts the random numbers of a resumed run back."""
        if self._rng:
            if len(self._rng) == trainer.world_size:
                set_rng_state(self._rng[trainer.global_rank])
            else:
                log.warning("random numbers start over: the checkpoint is of %d processes", len(self._rng))
            self._rng = []
        self._stepping = True

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: Stage, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves every so many steps, or because a signal asked, and then stops."""
        if not pl_module.step.broken:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._stepping = False
        if pl_module.step.broken:  # the module will stop
            return
        asked = self._agreed(trainer, pl_module)
        if asked and asked == REQUEUE:
            self._signal = None if self._signal == REQUEUE else self._signal
            self._former[REQUEUE](REQUEUE, None)
            asked = 0 if trainer.world_size > 1 else self._signal or 0  # SLURM may have told this one to stop by now
        evaluated = trainer.is_last_batch and any(e.every_n_epochs for e in callbacks_of(trainer, Evaluation))
        if asked or evaluated or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._save(trainer)
        if asked:
            raise self._stopped(trainer, asked)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._save(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: Stage) -> None:
        """Does nothing: everything is saved, before the evaluation that ends a run."""

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: Stage, checkpoint: dict[str, Any]) -> None:
        checkpoint["rng"] = gathered(trainer, [rng_state()])

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: Stage, checkpoint: dict[str, Any]) -> None:
        """Takes them up; they are put back right before the first step, since preparing draws some."""
        self._rng = checkpoint.get("rng", [])
        self._saved, self._newest = checkpoint["global_step"], Path(str(trainer.ckpt_path))

    def _save(self, trainer: Trainer) -> None:
        if self._saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    @override
    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._saved, self._newest = trainer.global_step, Path(filepath)

    def _agreed(self, trainer: Trainer, pl_module: Stage) -> int:
        """The signal that all processes act on after this step, 0 for none; one that comes meanwhile has to wait."""
        if trainer.world_size == 1:
            return self._signal or 0
        asked = torch.tensor(self._signal or 0, device=pl_module.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return int(asked)

    def _stopped(self, trainer: Trainer, number: int) -> Stopped:
        step = max(self._saved, trainer.global_step)  # a resumed run may not have come as far yet
        last = last_checkpoint(run_folder(trainer))
        found = last is not None and self._newest is not None and last.resolve() == self._newest.resolve()
        return Stopped(number, step, self._newest, found)

    def listen(self, trained: bool = False) -> None:
        """Takes signals over from Lightning, which saves and talks to others in the middle of whatever they do.

        Args:
            trained: whether no step is left.
        """
        self._trained = trained
        if threading.current_thread() is threading.main_thread():
            requeues = REQUEUE and SLURMEnvironment.detect() and (trained or callable(signal.getsignal(REQUEUE)))
            for number in (signal.SIGINT, signal.SIGTERM, *([REQUEUE] if requeues else [])):
                self._former.setdefault(number, signal.getsignal(number))
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        """A signal came: it has to wait for the end of the next step, unless nothing is lost by stopping here."""
        if self._trainer is None or self._trainer.state.status != TrainerStatus.RUNNING:  # the run is over
            if number != REQUEUE:
                signal.signal(number, self._former[number])
                signal.raise_signal(number)
            return
        if self._signal not in (None, REQUEUE) and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == REQUEUE:
            self._signal = self._signal or number
        else:
            self._signal = number
            saved = self._saved == -1 or self._saved >= self._trainer.global_step
            if saved and not self._stepping and self._trainer.world_size == 1:
                raise self._stopped(self._trainer, number)
        then = "requeueing after this step" if number == REQUEUE else "stopping after this step"
        then = "every step is taken and saved, the last evaluation goes on" if self._trained else then
        log.info("%s: %s", signal.Signals(number).name, then)


class Signals(Callback):
    """Has :class:`Checkpoint` listen before any other callback evaluates."""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        for checkpoint in callbacks_of(trainer, Checkpoint):
            checkpoint.listen()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        """Before the evaluation that ends a run Lightning has put the former handlers back."""
        for checkpoint in callbacks_of(trainer, Checkpoint):
            checkpoint.listen(trained=True)
