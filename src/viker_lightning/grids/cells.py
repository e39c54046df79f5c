"""A cell: one ordinary run of a grid, made once, resumed where it stopped, and known by a fingerprint."""

import functools
import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viker_lightning.jobs.job import Job, State
from viker_lightning.storage.runs import names
from viker_lightning.storage.secrets import hide, hide_in
from viker_lightning.storage.sources import code_fingerprint, fingerprint, source_files
from viker_lightning.storage.yaml_files import yaml_values


@dataclass(frozen=True)
class Cell(Job):
    """One run.

    Attributes:
        grid: name of the table, with its scale, and the block if this is no forget ratio.
        block: e.g. the forget ratio.
        row: e.g. the method.
        seed: of everything; of the choice of irrelevant images only where ``model.seed`` is null.
        config: YAML of the run.
        options: command-line options without dashes.
        folder: of the run.
        gold: the cell whose model it is compared with; made first.
        previous: the cell whose model it goes on from, where requests come one after another; made first, too.
    """

    grid: str
    block: str
    row: str
    seed: int
    config: str
    options: dict[str, Any]
    folder: Path
    gold: "Cell | None" = None
    previous: "Cell | None" = None

    note_name = "cell.json"

    @property
    def title(self) -> str:
        """Block, row and seed, for the terminal."""
        return " / ".join(part for part in (self.block, self.row, f"seed {self.seed}") if part)

    @property
    def arguments(self) -> list[str]:
        """Arguments of ``viker_lightning``."""
        return self._arguments(self.options)

    def _arguments(self, options: dict[str, Any]) -> list[str]:
        values = {**options, "trainer.default_root_dir": self.folder}
        return ["fit", f"--config={self.config}", *(f"--{key}={_text(value)}" for key, value in values.items())]

    @property
    def command(self) -> str:
        """What anybody can type to make this run again, without tokens and passwords: notes and pages show it."""
        return "python -m viker_lightning " + hide(shlex.join(self._arguments(hide_in(self.options))))

    def fingerprint(self) -> str:
        """Changes with the command, what it reads, the code, a method of yours, and the cells that are made first.

        Code of other methods than its own does not count: one that comes later makes no run anew. It stays the same
        where the folder of all runs is moved.
        """
        first = [cell for _, cell in self.made_first()]
        made = {str(cell.folder): cell.folder.name for cell in first}
        options = {k: made.get(str(v), _text(v)) for k, v in self.options.items()}
        read = inputs(self.config)
        for value in _leaves(self.options):
            read |= inputs(value) if value not in made else {}
        made_of = [self.folder.name, code_fingerprint(self._names())]
        made_of += [f"{name}={value}" for name, value in [*sorted(options.items()), *sorted(read.items())]]
        made_of += [cell.fingerprint() for cell in first]
        return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]

    def _names(self) -> frozenset[str] | None:
        """All that may be the name of a method of this package; ``None`` if a class from elsewhere may use any."""
        names = {*_leaves(config_values(Path(self.config))), *_leaves(self.options)}
        return None if any(map(source_files, names)) else frozenset(name.rpartition(".")[2] for name in names)

    def is_whole(self) -> bool:
        """Whether the run is finished."""
        return names.is_finished(self.folder)

    def keeps(self) -> bool:
        """Whether it has a checkpoint."""
        return (self.folder / names.LAST).exists()

    def made_first(self) -> list[tuple[str, Job]]:
        """Its gold model, and the request before it."""
        cells = (("its gold model", self.gold), ("the request before it", self.previous))
        return [(what, cell) for what, cell in cells if cell]

    def words(self, again: bool) -> list[str]:
        """Arguments of Python that make the run, or have it go on."""
        return ["viker_lightning", *self.arguments, *["--ckpt_path=last"] * again]

    def variables(self) -> dict[str, str]:
        """Where W&B files the run: a group for each table, a job type for each row."""
        return {
            "WANDB_RUN_GROUP": self.grid,
            "WANDB_JOB_TYPE": self.row,
            "WANDB_NAME": self.title,
            "WANDB_TAGS": ",".join(part for part in (self.block, f"seed {self.seed}") if part),
        }

    def described(self) -> dict[str, Any]:
        """What the JSON of a table says of it, without the place it lies in."""
        noted = self.note()
        state = self.state_of(noted)
        about = {"block": self.block, "row": self.row, "seed": self.seed, "state": state.value, "command": self.command}
        about |= {name: noted.get(name) for name in ("seconds", "peak_memory_bytes")}
        return about | ({"error": self.complaint()} if state == State.FAILED else {})


def inputs(value: str) -> dict[str, str]:
    """The file or folder an option names, and those that are named in it if it is YAML; or the source of a class.

    Args:
        value: of an option; most name no file.

    Returns:
        A fingerprint by path: of a file its content, of a folder the names, sizes and times of what is in it; by the
        name of a class that is not of this package, of its file and of what that imports from beside it.
    """
    path = Path(value)
    try:
        if not value or not path.exists():
            source = source_files(value)
            return {value: fingerprint(source)} if source else {}
    except OSError:  # too long for a name
        return {}
    if path.is_dir():
        files = [(file, file.stat()) for file in sorted(path.rglob("*")) if file.is_file()]
        content = "\n".join(f"{file.relative_to(path)} {s.st_size} {s.st_mtime_ns}" for file, s in files).encode()
    else:
        content = path.read_bytes()
    fingerprints = {value: hashlib.sha256(content).hexdigest()[:16]}
    if path.suffix in (".yaml", ".yml") and path.is_file():
        for leaf in _leaves(config_values(path)):
            fingerprints |= inputs(leaf)
    return fingerprints


def config_values(file: Path) -> Any:
    """The values of a run's YAML, parsed once as long as its content stays the same."""
    try:
        return _parsed(file, file.read_bytes())
    except OSError:
        return yaml_values(file)  # says why


@functools.lru_cache
def _parsed(file: Path, content: bytes) -> Any:
    return yaml_values(file)


def _leaves(node: Any) -> Iterator[str]:
    """Every text in a YAML file but where a run goes."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value) if key != "default_root_dir" else ()
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value)
    elif isinstance(node, str):
        yield node


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    return json.dumps(value) if isinstance(value, list | dict | bool) or value is None else str(value)
