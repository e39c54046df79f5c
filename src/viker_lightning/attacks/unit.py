"""A unit: one attack on one model, in a process of its own; whole parts are kept, a stopped one goes on behind them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viker_lightning.children import last_error, locked, read_note, run_child
from viker_lightning.errors import UserError
from viker_lightning.experiments.cells import State
from viker_lightning.files import write_json
from viker_lightning.processes import by_itself
from viker_lightning.progress import last_stage
from viker_lightning.secrets import hide
from viker_lightning.sources import code_fingerprint, fingerprint, source_files, with_neighbours

from .attempt import Attempt, read_attempts, write_attempts
from .base import Attack
from .material import Material
from .subject import Subject

NOTE, LOG, ENDING = "unit.json", "log.txt", ".parquet"


@dataclass(frozen=True)
class Unit:
    """One attack on one model.

    Attributes:
        attack: with its settings.
        subject: the model.
        material: fingerprint of whom it is about.
        arguments: of ``python -m viker_lightning.attacks`` that carry out this unit alone.
    """

    attack: Attack
    subject: Subject
    material: str
    arguments: Sequence[str]

    @property
    def folder(self) -> Path:
        """Where it is kept: beside the model, so that gold is attacked once for all that are compared with it.

        Settings, people or code that are others have another folder, so that nothing that is finished is lost.
        """
        return self.subject.folder / f"{self.attack.name}-{self.fingerprint()[:8]}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.attack.name} / {self.subject.name}"

    @property
    def command(self) -> str:
        """What anybody can type to have these attempts made."""
        return "python -m viker_lightning.attacks " + hide(shlex.join(self.arguments))

    def fingerprint(self) -> str:
        """Changes with the attack, its settings, the code behind it, the weights, and whom it is about."""
        made_of = f"{_source(type(self.attack))}/{self.attack!r}/{self.subject.fingerprint()}/{self.material}"
        return hashlib.sha256(made_of.encode()).hexdigest()[:16]

    def note(self) -> dict[str, Any]:
        """What was noted when it was last run; empty if never, or if it has changed since."""
        return read_note(self.folder / NOTE, self.fingerprint)

    def state(self) -> State:
        """How far it is."""
        noted = self.note()
        if not noted:
            return State.MISSING
        if noted.get("exit_code") == 0 and all(self._file(part).is_file() for part in self.attack.parts()):
            return State.FINISHED
        return State.FAILED if noted.get("exit_code") else State.STARTED

    def run(self, environment: Mapping[str, str] | None = None, stop: threading.Event | None = None) -> State:
        """Carries out what is left in a process of its own; two that want the same unit wait for each other.

        Args:
            environment: variables besides those of this process.
            stop: when it is set, the unit is told to stop; its whole parts are kept.

        Returns:
            Finished, or failed; ``log.txt`` in the folder says why.

        Raises:
            KeyboardInterrupt: if it was stopped.
        """
        stop = stop or threading.Event()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(f"{self.folder}.lock", stop):
            if self.state() == State.FINISHED:
                return State.FINISHED
            noted = self.begin()
            command = [sys.executable, "-m", "viker_lightning.attacks", *self.arguments, "--here"]
            variables = {**by_itself(os.environ), **(environment or {})}
            ended = run_child(command, variables, self.folder / LOG, "seconds" in noted, stop)
            self.end(ended.seconds, None if ended.interrupted else ended.exit_code)
            if ended.interrupted:
                raise ended.interrupted
        return self.state()

    def begin(self) -> dict[str, Any]:
        """Makes room, keeping whole parts of the very same unit; returns what is noted."""
        noted = self.note()
        if not noted:
            self.folder.mkdir(parents=True, exist_ok=True)
            noted = {"fingerprint": self.fingerprint(), "command": self.command}
        noted.pop("exit_code", None)
        write_json(self.folder / NOTE, noted)
        return noted

    def end(self, seconds: float, exit_code: int | None) -> None:
        """Notes what it took, and how it ended if it was not stopped."""
        noted = self.note()
        noted["seconds"] = round(noted.get("seconds", 0) + seconds, 1)
        write_json(self.folder / NOTE, noted if exit_code is None else noted | {"exit_code": exit_code})

    def carry_out(self, material: Material) -> None:
        """Carries out the parts that are not there yet, in this process; one that cannot be does not keep the others.

        Raises:
            UserError: if parts cannot be carried out, after all others have been.
        """
        wrong = []
        for part in self.attack.parts():
            if not self._file(part).is_file():
                try:
                    write_attempts(self._file(part), self.attack.carry_out(part, self.subject, material))
                except UserError as error:
                    wrong.append(f"{part}: {error}")
        if wrong:
            raise UserError("; ".join(wrong))

    def attempts(self) -> list[Attempt]:
        """What it got out of the model, of the parts that are there."""
        files = [self._file(part) for part in self.attack.parts()]
        return [one for file in files if file.is_file() for one in read_attempts(file)]

    def stage(self) -> str:
        """What it said last of how far it is; empty if nothing."""
        return last_stage(self.folder / LOG)

    def complaint(self) -> str:
        """Why it failed."""
        return last_error(self.folder / LOG)

    def _file(self, part: str) -> Path:
        return self.folder / (re.sub(r"[^\w.-]+", "-", part) + ENDING)


@functools.cache
def _source(kind: type[Attack]) -> str:
    """A hash of an attack's file, what it imports from beside it, and the rest of the program but other methods."""
    own = source_files(f"{kind.__module__}.{kind.__qualname__}")
    files = own or with_neighbours(Path(sys.modules[kind.__module__].__file__ or ""))
    return f"{fingerprint(files)}/{code_fingerprint(frozenset())}"
