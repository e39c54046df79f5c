"""The vanilla model of a grid, made beside its gold model where a processor has a core to spare."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from viker_lightning.jobs.job import Job, State
from viker_lightning.jobs.runner import job_environments

from .cells import Cell
from .grid import config_option

READ = (
    "--config=",
    "--data.",
    "--model.vanilla=",
    "--model.family=",
    "--model.revision=",
    "--model.trust_remote_code=",
)
"""Options of a run that say which vanilla model it begins with."""


class VanillaFirst(Job):
    """What makes the model that a run begins with, in the cache where all find it: validates on no batch.

    Otherwise the first run that asks for it would make it, after gold, and all others would wait for that.
    """

    title = "Vanilla"
    note_name = "vanilla.json"

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._left = TemporaryDirectory(prefix="viker-lightning-")  # nothing of this is a run to look at
        self.folder = Path(self._left.name) / "run"

    @property
    def command(self) -> str:
        """Of the run that begins with it, which makes it, too."""
        return self._cell.command

    def fingerprint(self) -> str:
        """None: a model that is there already is found when it is asked for."""
        return ""

    def is_whole(self) -> bool:
        """True: what it makes is in the cache."""
        return True

    def words(self, again: bool) -> list[str]:
        """Arguments of Python that have the model made, and nothing evaluated."""
        words = [word for word in self._cell.arguments if word.startswith(READ)]
        nothing = ["--trainer.limit_val_batches=0", "--trainer.logger=false"]
        folder = f"--trainer.default_root_dir={self.folder / 'run'}"
        return ["viker_lightning", "validate", *words, *nothing, folder]


def vanilla_first(cells: Sequence[Cell], jobs: int | None) -> list[VanillaFirst]:
    """The vanilla model that is to be made first; none where nothing would be gained.

    It is where golds alone leave a core idle, for methods wait for gold. A GPU makes gold's judge, which is the vanilla
    model, before it trains gold.
    """
    if torch.cuda.is_available():
        return []
    waiting = [cell for cell in cells if cell.gold and State.FINISHED not in (cell.state(), cell.gold.state())]
    golds = {cell.gold.folder for cell in waiting if cell.gold}
    begun = [
        (cell, cell.options.get("model.vanilla") or config_option(cell.config, "model.vanilla")) for cell in waiting
    ]
    made = [cell for cell, vanilla in begun if str(vanilla).endswith((".yaml", ".yml"))]
    return [VanillaFirst(made[0])] if made and len(golds) < len(job_environments(jobs)) else []
