"""The run folder at the start of a run: take it, and move what is there out of the way; nothing is lost."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from viker_lightning.errors import UserError
from viker_lightning.storage.files import make_folder

from . import names
from .resume import LONGEST_PATH, last_checkpoint, read_results

log = logging.getLogger(__name__)


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
    make_folder("trainer.default_root_dir", run)
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


def clear(run: Path) -> None:
    """Removes what a killed run had begun to write."""
    for folder in (run, run / names.CHECKPOINTS):
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
    with contextlib.suppress(OSError):
        (run / names.CHECKPOINTS).rmdir()  # if it is empty


def _next(run: Path, name: str, ending: str = "") -> int:
    """The number behind the highest that ``<name>-<n>`` has had: a count would fall on one that is there."""
    numbers = [path.name.removeprefix(f"{name}-").removesuffix(ending) for path in run.glob(f"{name}-*{ending}")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1


def keep_earlier(run: Path, name: str) -> None:
    """Renames a file that is about to be written anew, e.g. ``metrics.csv`` to ``metrics-<n>.csv``."""
    file = run / name
    if file.is_file():
        earlier = file.with_stem(f"{file.stem}-{_next(run, file.stem, file.suffix)}")
        file.rename(earlier)
        log.info("%s: earlier %s kept", earlier, file.stem)


def wandb_run(run: Path) -> str | None:
    """Id under which W&B's server knows what ran in a folder last, so that a resumed run continues its curves.

    ``None`` if nothing was sent from there, or the last run was an offline one: ``wandb sync`` would not keep two
    offline runs with one id.
    """
    runs = [path.name for path in (run / "wandb").glob("*run-*-*")]
    newest = max(runs, key=lambda name: name.removeprefix("offline-"), default="")
    return newest.split("-", 2)[2] if newest.startswith("run-") else None


def check_inputs(run: Path, options: Iterable[tuple[str, Any]]) -> None:
    """Refuses options, by name, that read what lies in the run folder of a fit itself: it would be set aside first."""
    own = run.resolve()
    for name, value in options:
        if not isinstance(value, str) or not value or len(value) > LONGEST_PATH or "\0" in value:
            continue
        path = Path(value).resolve()
        inside = path.relative_to(own).parts[:1] if path.is_relative_to(own) else None
        if (inside == () and not name.endswith(".root")) or (inside and inside[0] in names.OF_A_FIT and path.exists()):
            raise UserError(
                f"{name}: {value} lies in this run's own folder, trainer.default_root_dir, and would be moved away; "
                "give another one"
            )


def set_aside(run: Path) -> None:
    """Moves what earlier commands left into ``earlier-<n>/``: nothing in the folder can be mistaken for this run's.

    That is all of an earlier fit, be it nothing but curves, and what ``validate``, ``test`` and ``predict`` wrote: they
    are not of the weights that this run ends with.
    """
    clear(run)
    of_a_run = [name for name in names.OF_A_FIT if (run / name).exists()]
    of_a_run += [path.name for path in run.glob(names.REQUEUED)]
    written = [names.of_command(name, one) for one in ("validate", "test", "predict") for name in names.OF_A_COMMAND]
    others = [name for name in (*names.OF_ANY, *written) if (run / name).exists()]
    others += [path.name for kept in names.KEPT for path in run.glob(kept)]
    if not of_a_run and not others:
        return
    aside = run / f"earlier-{_next(run, 'earlier')}"
    aside.mkdir()
    for name in (*of_a_run, *others, *([names.CONFIG] if (run / names.CONFIG).exists() else [])):
        (run / name).replace(aside / name)
    results = read_results(aside)
    stopped = bool(results and results.get("stopped"))
    done = "unfinished" if results is None else "stopped by the guard" if stopped else "finished"
    what = f"an earlier run ({done})" if of_a_run else "what earlier commands left"
    more = "; --ckpt_path last would have resumed it" if last_checkpoint(aside) and not stopped else ""
    log.warning("%s: %s is now in %s%s", run, what, aside.name, more)
