"""A cell: one ordinary run of a grid, made once, resumed where it stopped, and known by a fingerprint."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from viker_lightning.children import last_error, locked, read_note, run_child
from viker_lightning.files import write_json
from viker_lightning.processes import by_itself
from viker_lightning.progress import last_stage
from viker_lightning.reporting.tables import TableRun
from viker_lightning.runs import names
from viker_lightning.secrets import hide, hide_in
from viker_lightning.sources import code_fingerprint, fingerprint, source_files
from viker_lightning.yaml_files import yaml_values

NOTE, LOG = "cell.json", "log.txt"


class State(StrEnum):
    """How far a cell is."""

    MISSING = "missing"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Cell:
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
    gold: Cell | None = None
    previous: Cell | None = None

    @property
    def beside(self) -> list[Cell]:
        """The cells that are made first."""
        return [cell for cell in (self.gold, self.previous) if cell]

    @property
    def title(self) -> str:
        """For people."""
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
        made = {str(cell.folder): cell.folder.name for cell in self.beside}
        options = {k: made.get(str(v), _text(v)) for k, v in self.options.items()}
        read = inputs(self.config)
        for value in _leaves(self.options):
            read |= inputs(value) if value not in made else {}
        made_of = [self.folder.name, code_fingerprint(self._names())]
        made_of += [f"{name}={value}" for name, value in [*sorted(options.items()), *sorted(read.items())]]
        made_of += [cell.fingerprint() for cell in self.beside]
        return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]

    def _names(self) -> frozenset[str] | None:
        """All that may be the name of a method of this package; ``None`` if a class from elsewhere may use any."""
        names = {*_leaves(config_values(Path(self.config))), *_leaves(self.options)}
        return None if any(map(source_files, names)) else frozenset(name.rpartition(".")[2] for name in names)

    def note(self) -> dict[str, Any]:
        """What was noted when it was last run; empty if never, or if the cell has changed since."""
        return read_note(self.folder / NOTE, self.fingerprint)

    def state(self) -> State:
        """How far it is."""
        return self._state(self.note())

    def _state(self, noted: dict[str, Any]) -> State:
        if not noted:
            return State.MISSING
        if names.is_finished(self.folder) and noted.get("exit_code") == 0:
            return State.FINISHED
        return State.FAILED if noted.get("exit_code") else State.STARTED

    def table_run(self) -> TableRun:
        """What a table shows of it."""
        noted = self.note()
        state = self._state(noted)
        return TableRun(
            block=self.block,
            row=self.row,
            seed=self.seed,
            title=self.title,
            state=state.value,
            command=self.command,
            folder=self.folder,
            seconds=noted.get("seconds"),
            peak_memory_bytes=noted.get("peak_memory_bytes"),
            error=self.complaint() if state == State.FAILED else "",
        )

    def run(self, environment: Mapping[str, str] | None = None, stop: threading.Event | None = None) -> State:
        """Runs what is left to be run, cells it needs first; processes that want the same cell wait for each other.

        Args:
            environment: variables besides those of this process, which runs as one of SLURM (it would leave saving to
                requeueing) or of a W&B sweep only if they are given here; what is made first never is of a sweep.
            stop: when it is set, the run is told to save and stop; signals reach the main thread alone.

        Returns:
            Finished, or failed; ``log.txt`` in the folder says why.

        Raises:
            KeyboardInterrupt: if it was stopped.
        """
        stop = stop or threading.Event()
        if any(cell.run(by_itself(environment or {}), stop) != State.FINISHED for cell in self.beside):
            return State.FAILED
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(f"{self.folder}.lock", stop):
            if self.state() == State.FINISHED:
                return State.FINISHED
            earlier = self.note()  # if it is empty, the run itself moves what other code has left aside
            self.folder.mkdir(exist_ok=True)
            noted = {"command": self.command, "fingerprint": self.fingerprint()}
            if (self.folder / names.LAST).exists():  # else it starts over
                noted |= {key: earlier[key] for key in ("seconds", "peak_memory_bytes") if key in earlier}
            write_json(self.folder / NOTE, noted)
            environment = {**by_itself(os.environ), **self._dashboard(), **(environment or {})}
            self._call(environment, noted, bool(earlier), stop)
        return self.state()

    def _call(self, environment: Mapping[str, str], noted: dict[str, Any], again: bool, stop: threading.Event) -> None:
        """Runs the command, resumed where it stopped if it is run again, and adds what it took to the note."""
        command = [sys.executable, "-m", "viker_lightning", *self.arguments, *["--ckpt_path=last"] * again]
        ended = run_child(command, environment, self.folder / LOG, again, stop)
        noted = noted | {
            "seconds": round(noted.get("seconds", 0) + ended.seconds, 1),
            "peak_memory_bytes": max(noted.get("peak_memory_bytes", 0), ended.peak_memory_bytes),
        }
        write_json(self.folder / NOTE, noted if ended.interrupted else noted | {"exit_code": ended.exit_code})
        if ended.interrupted:
            raise ended.interrupted

    def _dashboard(self) -> dict[str, str]:
        """Where W&B files the run: a group for each table, a job type for each row."""
        return {
            "WANDB_RUN_GROUP": self.grid,
            "WANDB_JOB_TYPE": self.row,
            "WANDB_NAME": self.title,
            "WANDB_TAGS": ",".join(part for part in (self.block, f"seed {self.seed}") if part),
        }

    def stage(self) -> str:
        """What it said last of how far it is; empty if nothing, as where it waits for what is made first."""
        return last_stage(self.folder / LOG) if self.note() else ""  # a log of other code may lie there

    def complaint(self) -> str:
        """Why it failed: the last error in its log, else the last line that is not empty."""
        if self.gold and self.gold.state() == State.FAILED:
            return f"its gold model failed: {self.gold.complaint()}"
        if self.previous and self.previous.state() == State.FAILED:
            return f"the request before it failed: {self.previous.complaint()}"
        return last_error(self.folder / LOG)


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
    """The values of a run's YAML, parsed once as long as its content stays the same.

    Raises:
        UserError: if it is no YAML of a run.
    """
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
