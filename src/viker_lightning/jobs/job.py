"""A job: a command with a folder of its own, made once, resumed where it stopped, and known by a fingerprint."""

import json
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from viker_lightning.storage.files import write_json
from viker_lightning.terminal.progress import last_stage

from .children import last_error, locked, run_child
from .processes import by_itself

LOG = "log.txt"
"""What the command prints, in the folder of the job."""

SPENT = ("seconds", "peak_memory_bytes")
"""What a note says of all the times that a job was run."""


class State(StrEnum):
    """How far a job is."""

    MISSING = "missing"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


class Job(ABC):
    """A run of a grid, an attack on a model: says what its command is and what that reads, no more.

    What became of it is noted in its folder: ``command``, ``fingerprint``, ``seconds``, ``peak_memory_bytes``, and
    ``exit_code`` once it has ended.
    """

    note_name: str
    """Of the note, in the folder."""

    folder: Path
    """What it makes, its note and its log."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the job is called on the terminal and in messages."""

    @property
    @abstractmethod
    def command(self) -> str:
        """What anybody can type to have the same, without tokens and passwords."""

    @abstractmethod
    def words(self, again: bool) -> Sequence[str]:
        """What follows ``python -m``; ``again`` if it goes on where it stopped."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with the command, what it reads, and the code behind it."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Whether all that it makes is there."""

    def made_first(self) -> Sequence[tuple[str, "Job"]]:
        """Jobs that it needs, each with what it is to this one."""
        return ()

    def keeps(self) -> bool:
        """Whether it goes on from what it left when it was stopped; else it starts over."""
        return True

    def variables(self) -> dict[str, str]:
        """Variables of its process that others do not have."""
        return {}

    def note(self) -> dict[str, Any]:
        """What was noted when it was last run; empty if never, or if what it is made of has changed since."""
        try:
            noted = json.loads((self.folder / self.note_name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # not there, cut short, or no note of ours
            return {}
        return noted if isinstance(noted, dict) and noted.get("fingerprint") == self.fingerprint() else {}

    def state(self) -> State:
        """How far it is."""
        return self.state_of(self.note())

    def state_of(self, noted: Mapping[str, Any]) -> State:
        """How far a job with this note is."""
        if not noted:
            return State.MISSING
        if noted.get("exit_code") == 0 and self.is_whole():
            return State.FINISHED
        return State.FAILED if noted.get("exit_code") else State.STARTED

    def run(self, environment: Mapping[str, str] | None = None, stop: threading.Event | None = None) -> State:
        """Runs what is left, jobs it needs first; processes that want the same job wait for each other.

        Args:
            environment: variables besides those of this process, which runs as one of SLURM (it would leave saving to
                requeueing) or of a W&B sweep only if they are given here; what is made first never is of a sweep.
            stop: when it is set, the job is told to save and stop; signals reach the main thread alone.

        Returns:
            Finished, or failed; ``log.txt`` in the folder says why.

        Raises:
            KeyboardInterrupt: if it was stopped.
        """
        stop, environment = stop or threading.Event(), environment or {}
        if any(job.run(by_itself(environment), stop) != State.FINISHED for _, job in self.made_first()):
            return State.FAILED
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(f"{self.folder}.lock", stop):
            if self.state() == State.FINISHED:
                return State.FINISHED
            again = bool(self.note())  # if not, the command itself moves what other code has left aside
            noted = self._begin()
            variables = {**by_itself(os.environ), **self.variables(), **environment}
            command = [sys.executable, "-m", *self.words(again)]
            ended = run_child(command, variables, self.folder / LOG, again, stop)
            noted |= {
                "seconds": round(noted.get("seconds", 0) + ended.seconds, 1),
                "peak_memory_bytes": max(noted.get("peak_memory_bytes", 0), ended.peak_memory_bytes),
            }
            noted |= {} if ended.interrupted else {"exit_code": ended.exit_code}
            write_json(self.folder / self.note_name, noted)
            if ended.interrupted:
                raise ended.interrupted
        return self.state()

    def _begin(self) -> dict[str, Any]:
        """Makes the folder and a new note, with what was spent before where that still counts."""
        earlier = self.note()
        self.folder.mkdir(exist_ok=True)
        noted: dict[str, Any] = {"command": self.command, "fingerprint": self.fingerprint()}
        if self.keeps():
            noted |= {key: earlier[key] for key in SPENT if key in earlier}
        write_json(self.folder / self.note_name, noted)
        return noted

    def stage(self) -> str:
        """What it said last of how far it is; empty if nothing, as where it waits for what is made first."""
        return last_stage(self.folder / LOG) if self.note() else ""  # a log of other code may lie there

    def complaint(self) -> str:
        """Why it failed: the last error in its log, else the last line that is not empty."""
        for what, job in self.made_first():
            if job.state() == State.FAILED:
                return f"{what} failed: {job.complaint()}"
        return last_error(self.folder / LOG)
