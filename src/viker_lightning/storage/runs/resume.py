"""Resuming: from which checkpoint, whether anything is left to do, and whether the checkpoint is of such a run."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from torch import Tensor

from viker_lightning.errors import UserError

from . import names

log = logging.getLogger(__name__)

LONGEST_PATH = 300
"""Characters of a path that are repeated in a message."""


class NothingToDo(Exception):
    """The run that was to be resumed is finished."""


def checkpoint_to_start_from(
    run: Path, command: str, given: str | None, max_steps: int = -1, max_epochs: int | None = None
) -> str | None:
    """The checkpoint a command starts from; ``None`` to start afresh.

    Args:
        run: its folder.
        command: ``fit`` or another.
        given: ``--ckpt_path``: a file, ``last``, or ``hpc`` as Lightning has it.
        max_steps: optimizer steps asked for; -1 for no limit.
        max_epochs: epochs asked for; ``None`` and -1 for no limit.

    Raises:
        NothingToDo: if it belongs to a run that is finished.
        UserError: if it does not exist.
    """
    last, requeued = last_checkpoint(run), any(run.glob(names.REQUEUED))
    if given is None:
        # A requeued job is the same command again; Lightning would look for its own file alone.
        again = command == "fit" and requeued and SLURMEnvironment.detect() and not names.is_finished(run)
        return str(last) if again else None
    if given == "last":
        if last is None:
            if command != "fit":
                raise UserError(f"ckpt_path: {run} has no checkpoint; give another trainer.default_root_dir or a file")
            log.info("%s has no checkpoint: starting afresh", run)
            return None
        if command == "fit" and (why := why_complete(run, max_steps, max_epochs)):
            raise NothingToDo(f"{run} {why}")
        return str(last)
    if not (given == "hpc" and requeued) and not os.path.exists(given):  # False for no path at all, too
        shown = given if len(given) <= LONGEST_PATH else f"{given[:LONGEST_PATH]}..."
        raise UserError(f"ckpt_path: {shown} does not exist; give a checkpoint, or 'last'")
    return given


def last_checkpoint(run: Path) -> Path | None:
    """The newest of ``checkpoints/last.ckpt`` and what Lightning wrote when SLURM requeued the job, if there is any."""
    requeued = sorted(run.glob(names.REQUEUED), key=lambda file: (len(file.name), file.name))[-1:]
    found = [file for file in (run / names.LAST, *requeued) if file.exists()]
    return max(found, key=lambda file: file.stat().st_mtime_ns, default=None)


def why_complete(run: Path, max_steps: int, max_epochs: int | None) -> str | None:
    """Why a run has nothing left to do, and what to do for more; ``None`` if it has something left."""
    results = read_results(run)
    if results is None or not (run / names.REPORT).is_file():  # killed at the very end: the report is written last
        return None
    steps, epochs = results["steps"], results.get("epochs", 0)
    if stopped := results.get("stopped"):
        return (
            f"is finished: the guard stopped it ({stopped['why']}); to try again, lower model.lr or the weights of the "
            "loss and leave --ckpt_path out"
        )
    for name, done, most in (("steps", steps, max_steps), ("epochs", epochs, max_epochs)):
        if most is not None and 0 <= most <= done:
            return f"is finished ({done} {name} of {most}); for more, raise trainer.max_steps or max_epochs"
    if not steps:  # a checkpoint is written where training begins, so it had begun
        return "is finished (its method edits the weights, without steps); to edit anew, leave --ckpt_path out"
    return None


def read_results(run: Path) -> dict[str, Any] | None:
    """What ``results.json`` holds; ``None`` if it is not there, or not whole: such a run is not finished."""
    try:
        found = json.loads((run / names.RESULTS).read_text(encoding="utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("steps"), int):
        log.warning("%s: not whole, so the run counts as unfinished", run / names.RESULTS)
        return None
    return found


def set_rates(checkpoint: dict[str, Any], lr: float, weight_decay: float) -> None:
    """Puts this run's learning rate and weight decay into a checkpoint.

    A rate of 0 does not tell how far its schedule has come: the next step is taken with it, those after as scheduled.
    """
    for optimizer in checkpoint.get("optimizer_states", []):
        for group in optimizer["param_groups"]:
            if "weight_decay" in group:
                group["weight_decay"] = weight_decay
            if group["initial_lr"] != lr:
                begun = group["initial_lr"]
                group |= {"lr": group["lr"] * lr / begun if begun else 0.0, "initial_lr": lr}
    for scheduler in checkpoint.get("lr_schedulers", []):
        scheduler["base_lrs"] = [lr] * len(scheduler["base_lrs"])


def count_epochs(checkpoint: dict[str, Any], steps: int) -> None:
    """Counts the epochs of a checkpoint from the steps taken, so many an epoch.

    Lightning's own counters are one short in a run that was resumed at the end of an epoch, so that a second resumption
    at such a point would take an epoch again. A checkpoint that was not saved at the end of a step is left alone.
    """
    loop = checkpoint["loops"]["fit_loop"]
    batches = loop["epoch_loop.batch_progress"]["total"]
    if checkpoint["global_step"] > 0 and batches["completed"] == batches["processed"] - 1:
        done = (checkpoint["global_step"] - 1) // steps  # the epoch of the newest step is left for Lightning to end
        for counts in loop["epoch_progress"].values():
            counts |= {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}


def check_optimizer(saved: str, found: str) -> None:
    """Refuses to resume a run with another kind of optimizer than the one that saved its state."""
    if saved != found:
        raise UserError(
            f"ckpt_path: the checkpoint has the state of {saved}, but this run's optimizer is {found}; set "
            "model.optimizer to what the run began with, or start afresh"
        )


def check_names(checkpoint: dict[str, Any], trained: Mapping[str, Tensor]) -> None:
    """Makes sure that a checkpoint holds exactly what is trained, each weight in its shape."""
    state, remedy = checkpoint["state_dict"], "it belongs to another model or LoRA setting"
    wanted, saved = set(trained), set(state)
    if wanted != saved:
        odd = sorted(wanted ^ saved, key=str)[0]
        found = f"{len(wanted - saved)} trained weights are missing, {len(saved - wanted)} unexpected, e.g. {odd!r}"
        raise UserError(f"checkpoint: {found}; {remedy}")
    for name, weight in trained.items():
        shape = getattr(state[name], "shape", None)
        if shape != weight.shape:
            expected = f"has shape {list(shape or ())}, expected {list(weight.shape)}"
            raise UserError(f"checkpoint: {name} {expected}; {remedy}")
