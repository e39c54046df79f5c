"""The vanilla model of a grid, made beside its gold model where a processor has a core to spare."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from viker_lightning.children import last_error, run_child
from viker_lightning.processes import by_itself
from viker_lightning.progress import last_stage

from .cells import LOG, Cell, State
from .grid import setting
from .runner import job_environments

READ = (
    "--config=",
    "--data.",
    "--model.vanilla=",
    "--model.family=",
    "--model.revision=",
    "--model.trust_remote_code=",
)
"""Options of a run that say which vanilla model it begins with."""


class VanillaFirst:
    """What makes the model that a run begins with, in the cache where all find it, and evaluates nothing.

    Otherwise the first run that asks for it would make it, after gold, and all others would wait for that.

    Args:
        cell: a run that begins with it.
    """

    title = "Vanilla"

    def __init__(self, cell: Cell) -> None:
        self._cell, self._ended = cell, State.MISSING
        self._left = TemporaryDirectory(prefix="viker-lightning-")  # nothing of this is a run to look at

    def state(self) -> State:
        """Whether it was made; one that is there already is found when it is asked for."""
        return self._ended

    def run(self, environment: Mapping[str, str] | None = None, stop: threading.Event | None = None) -> State:
        """Validates on no batch, which makes the model first; see :meth:`Cell.run`."""
        words = [word for word in self._cell.arguments if word.startswith(READ)]
        nothing = ["--trainer.limit_val_batches=0", "--trainer.logger=false"]
        command = [sys.executable, "-m", "viker_lightning", "validate", *words, *nothing]
        command += [f"--trainer.default_root_dir={Path(self._left.name) / 'run'}"]
        variables = {**by_itself(os.environ), **(environment or {})}
        ended = run_child(command, variables, self._log, False, stop or threading.Event())
        if ended.interrupted:
            raise ended.interrupted
        self._ended = State.FAILED if ended.exit_code else State.FINISHED
        return self._ended

    def stage(self) -> str:
        """What it said last of how far it is; empty if nothing."""
        return last_stage(self._log)

    def complaint(self) -> str:
        """Why it failed."""
        return last_error(self._log)

    @property
    def _log(self) -> Path:
        return Path(self._left.name) / LOG


def vanilla_first(cells: Sequence[Cell], jobs: int | None) -> list[VanillaFirst]:
    """The vanilla model that is to be made first; none where nothing would be gained.

    It is where golds alone leave a core idle, for methods wait for gold. A GPU makes gold's judge, which is the vanilla
    model, before it trains gold.

    Args:
        cells: of a grid.
        jobs: how many at a time; see :func:`~viker_lightning.experiments.runner.job_environments`.
    """
    if torch.cuda.is_available():
        return []
    waiting = [cell for cell in cells if cell.gold and State.FINISHED not in (cell.state(), cell.gold.state())]
    golds = {cell.gold.folder for cell in waiting if cell.gold}
    made = [cell for cell in waiting if str(_vanilla_of(cell)).endswith((".yaml", ".yml"))]
    return [VanillaFirst(made[0])] if made and len(golds) < len(job_environments(jobs)) else []


def _vanilla_of(cell: Cell) -> str | None:
    """What a run begins with; ``None`` of gold of another seed, say."""
    return cell.options.get("model.vanilla") or setting(cell.config, "model.vanilla")
