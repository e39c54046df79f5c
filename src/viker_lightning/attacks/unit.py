"""A unit: one attack on one model, in a process of its own; whole parts are kept, a stopped one goes on behind them."""

import functools
import hashlib
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viker_lightning.errors import UserError, short
from viker_lightning.jobs.job import Job
from viker_lightning.storage.secrets import hide
from viker_lightning.storage.sources import code_fingerprint, fingerprint, source_files, with_imports

from .attempt import Attempt, read_attempts, write_attempts
from .base import Attack
from .material import Material
from .subject import Subject


@dataclass(frozen=True)
class Unit(Job):
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

    note_name = "unit.json"

    @property
    def folder(self) -> Path:  # type: ignore[override]
        """Where it is kept: beside the model, so that gold is attacked once for all that are compared with it.

        Settings, people or code that are others have another folder, so that nothing that is finished is lost.
        """
        return self.subject.folder / f"{self.attack.name}-{self.fingerprint()[:8]}"

    @property
    def title(self) -> str:
        """Attack and model, for the terminal."""
        return f"{self.attack.name} / {self.subject.label}"

    @property
    def command(self) -> str:
        """What anybody can type to have these attempts made."""
        return "python -m viker_lightning.attacks " + hide(shlex.join(self.arguments))

    def fingerprint(self) -> str:
        """Changes with the attack, its settings, the code behind it, all weights it loads, and whom it is about."""
        weights = [self.subject, *map(self.subject.other, self.attack.needs)]
        loaded = "/".join(one.fingerprint() for one in weights)
        made_of = f"{_source(type(self.attack))}/{self.attack!r}/{loaded}/{self.material}"
        return hashlib.sha256(made_of.encode()).hexdigest()[:16]

    def is_whole(self) -> bool:
        """Whether all parts are there."""
        return all(self._file(part).is_file() for part in self.attack.parts())

    def words(self, again: bool) -> list[str]:
        """Arguments of Python that carry out the parts that are not there yet."""
        return ["viker_lightning.attacks", *self.arguments, "--here"]

    def carry_out(self, material: Material) -> None:
        """Carries out the parts that are not there yet, in this process; one that cannot be does not keep the others.

        Raises:
            UserError: if parts cannot be carried out, after all others have been.
        """
        wrong = []
        for part in self.attack.parts():
            if not self._file(part).is_file():
                try:
                    attempts = self.attack.carry_out(part, self.subject, material)
                    _check_attempts(type(self.attack).__name__, attempts)
                    write_attempts(self._file(part), attempts)
                except UserError as error:
                    wrong.append(f"{part}: {error}")
        if wrong:
            raise UserError("; ".join(wrong))

    def attempts(self) -> list[Attempt]:
        """What it got out of the model, of the parts that are there."""
        files = [self._file(part) for part in self.attack.parts()]
        return [one for file in files if file.is_file() for one in read_attempts(file)]

    def _file(self, part: str) -> Path:
        return self.folder / (re.sub(r"[^\w.-]+", "-", part) + ".parquet")


def _check_attempts(attack: str, attempts: object) -> None:
    """Makes sure of what an attack has come back with, which may be one of a user's."""
    if not isinstance(attempts, list) or not all(isinstance(attempt, Attempt) for attempt in attempts):
        wrong = attempts if not isinstance(attempts, list) else next(a for a in attempts if not isinstance(a, Attempt))
        raise UserError(f"{attack}.carry_out: found {short(wrong)}, expected a list of Attempt (attacks/attempt.py)")


@functools.cache
def _source(kind: type[Attack]) -> str:
    """A hash of an attack's file, what it imports of this room, and the rest of the program but other methods."""
    own = source_files(f"{kind.__module__}.{kind.__qualname__}")
    files = own or with_imports(Path(sys.modules[kind.__module__].__file__ or ""))
    return f"{fingerprint(files)}/{code_fingerprint(frozenset())}"
