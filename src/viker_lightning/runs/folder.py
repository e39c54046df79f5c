"""The run folder at the start of a run: go on with what is there, or move it out of the way; nothing is lost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from viker_lightning.errors import UserError

log = logging.getLogger(__name__)

OF_A_RUN = (
    *("results.json", "adapter", "merged", "model", "checkpoints", "predictions.parquet", "provenance.json"),
    *("key_tokens.json", "portraits.json", "report.html", "method", "skipped.txt"),
)
OF_ANY = ("metrics.csv", "similarity.json", "answers.jsonl")
CONFIG = "config.yaml"
"""Written anew by whatever runs: alone it is of a run that did nothing."""


def first_process() -> bool:
    """Whether this is the first process of a run, as far as its launcher says, before there is a trainer.

    Lightning's own guess does not look at the node, of which each has a process that Lightning starts others from.
    """
    node = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    return getattr(rank_zero_only, "rank", 0) == 0 and node == "0"


def lock(run: Path, patience: float = 0) -> FileLock:
    """Takes a run folder for this process, until the lock is released or the process ends, however it ends.

    The first process of a run takes it for all of them.

    Args:
        run: the folder.
        patience: seconds to wait for another run that is at work there.

    Raises:
        UserError: if another run has it, and keeps it.
    """
    run.mkdir(parents=True, exist_ok=True)
    held = FileLock(run / ".lock")
    with contextlib.suppress(Timeout):
        held.acquire(timeout=0)
        return held
    if patience:
        log.info("%s: another run is at work there; waiting up to %d seconds for it to stop", run, patience)
    try:
        held.acquire(timeout=patience)
    except Timeout:
        raise UserError(
            f"trainer.default_root_dir: another run is at work in {run}; wait for it, or give another folder"
        ) from None
    return held


def last_checkpoint(run: Path) -> Path | None:
    """The newest of ``checkpoints/last.ckpt`` and what Lightning wrote when SLURM requeued the job, if there is any."""
    requeued = sorted(run.glob("hpc_ckpt_*.ckpt"), key=lambda file: (len(file.name), file.name))[-1:]
    found = [file for file in (run / "checkpoints" / "last.ckpt", *requeued) if file.exists()]
    return max(found, key=lambda file: file.stat().st_mtime_ns, default=None)


def finished(run: Path, max_steps: int, max_epochs: int | None) -> str | None:
    """Why a run has nothing left to do, and what to do for more; ``None`` if it has something left.

    Args:
        run: its folder.
        max_steps: optimizer steps asked for; -1 for no limit.
        max_epochs: epochs asked for; ``None`` and -1 for no limit.
    """
    results = _results(run)
    if results is None or not (run / "report.html").is_file():  # killed at the very end: the report is written last
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
    return None


def _results(run: Path) -> dict[str, Any] | None:
    """What ``results.json`` holds; ``None`` if it is not there, or not whole: such a run is not finished."""
    try:
        found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("steps"), int):
        log.warning("%s: not whole, so the run counts as unfinished", run / "results.json")
        return None
    return found


def clear(run: Path) -> None:
    """Removes what a killed run had begun to write."""
    for folder in (run, run / "checkpoints"):
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
    with contextlib.suppress(OSError):
        (run / "checkpoints").rmdir()  # if it is empty


def _next(run: Path, name: str, ending: str = "") -> int:
    """The number behind the highest that ``<name>-<n>`` has had: a count would fall on one that is there."""
    numbers = [path.name.removeprefix(f"{name}-").removesuffix(ending) for path in run.glob(f"{name}-*{ending}")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1


def keep_metrics(run: Path) -> None:
    """Renames ``metrics.csv``, which the CSV logger would delete, to ``metrics-<n>.csv``."""
    clear(run)
    if (run / "metrics.csv").is_file():
        earlier = run / f"metrics-{_next(run, 'metrics', '.csv')}.csv"
        (run / "metrics.csv").rename(earlier)
        log.info("%s: earlier metrics kept", earlier)


def wandb_run(run: Path) -> str | None:
    """Id under which W&B's server knows what ran in a folder last, so that a resumed run goes on with the same curves.

    Args:
        run: the folder.

    Returns:
        The id; ``None`` if nothing was sent from there, or the last run was an offline one: ``wandb sync`` would not
        keep two offline runs with one id.
    """
    runs = [path.name for path in (run / "wandb").glob("*run-*-*")]
    newest = max(runs, key=lambda name: name.removeprefix("offline-"), default="")
    return newest.split("-", 2)[2] if newest.startswith("run-") else None


def set_aside(run: Path) -> None:
    """Moves what earlier commands left into ``earlier-<n>/``: nothing in the folder can be mistaken for this run's.

    That is all of an earlier fit, be it nothing but curves, and what ``validate``, ``test`` and ``predict`` wrote: they
    are not of the weights that this run ends with.
    """
    clear(run)
    of_a_run = [name for name in (*OF_A_RUN, *(path.name for path in run.glob("hpc_ckpt_*"))) if (run / name).exists()]
    others = [name for name in OF_ANY if (run / name).exists()]
    others += [path.name for path in run.glob("metrics-*.csv")]
    for kind in ("results", "predictions", "config", "skipped"):
        others += [path.name for command in ("validate", "test", "predict") for path in run.glob(f"{kind}-{command}.*")]
    if not of_a_run and not others:
        return
    aside = run / f"earlier-{_next(run, 'earlier')}"
    aside.mkdir()
    for name in (*of_a_run, *others, *([CONFIG] if (run / CONFIG).exists() else [])):
        (run / name).replace(aside / name)
    results = _results(aside)
    stopped = bool(results and results.get("stopped"))
    done = "unfinished" if results is None else "stopped by the guard" if stopped else "finished"
    what = f"an earlier run ({done})" if of_a_run else "what earlier commands left"
    more = "; --ckpt_path last would have gone on with it" if last_checkpoint(aside) and not stopped else ""
    log.warning("%s: %s is now in %s%s", run, what, aside.name, more)
