"""A command in a process of its own: its log, what it took, and how it is stopped."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from viker_lightning.storage.secrets import hide

from .fork_server import forked
from .processes import Child, waited_for


@dataclass(frozen=True)
class Ended:
    """How a child process ended.

    Attributes:
        exit_code: its exit code; negative for the signal that ended it.
        seconds: how long it ran.
        peak_memory_bytes: most main memory it held.
        interrupted: why it was told to stop, if it was.
    """

    exit_code: int
    seconds: float
    peak_memory_bytes: int
    interrupted: BaseException | None


def run_child(
    command: Sequence[str], environment: Mapping[str, str], log: Path, append: bool, stop: threading.Event
) -> Ended:
    """Runs a command to its end, output into a file; if ``stop`` is set or this is interrupted, it saves and stops."""
    with log.open("a" if append else "w", encoding="utf-8") as file:
        child = _start(command, environment, file.fileno(), file.fileno())
    started, interrupted = time.monotonic(), None  # what loads torch for all runs is nobody's time
    try:
        ended = child.wait(stop)
    except BaseException as error:
        interrupted, ended = error, child.stop()
    exit_code, memory = ended
    return Ended(exit_code, time.monotonic() - started, memory * (1 if sys.platform == "darwin" else 1024), interrupted)


def call_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command to its end; it prints where this process does, and stops where this one is interrupted."""
    child = _start(command, environment, output=1, errors=2)
    try:
        return child.wait()[0]
    except BaseException:
        child.stop()
        raise


def _start(command: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> Child:
    if child := forked(command, environment, output, errors):
        return child
    variables = waited_for(environment)
    process = subprocess.Popen(command, env=variables, stdout=output, stderr=errors, stdin=subprocess.DEVNULL)
    return Child(process.pid, partial(_poll, process))


def _poll(process: subprocess.Popen[bytes]) -> tuple[int, int] | None:
    pid, status, used = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss


def last_error(log: Path) -> str:
    """Why a child failed: the last error in its log, else the last line that is not empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return hide((errors or lines or ["it left no log"])[-1])


@contextmanager
def locked(file: str, stop: threading.Event) -> Iterator[None]:
    """Holds a lock that others may want, too; a KeyboardInterrupt if it is to stop before it has it."""
    lock = FileLock(file)
    while not lock.is_locked:
        if stop.is_set():
            raise KeyboardInterrupt
        with suppress(Timeout):
            lock.acquire(timeout=1)
    try:
        yield
    finally:
        lock.release()
