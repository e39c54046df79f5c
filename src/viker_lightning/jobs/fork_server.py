"""A process that has everything loaded, and from which commands are forked: many short runs load torch but once.

``python -m viker_lightning.jobs.fork_server FD`` is it. It has touched no GPU and has no thread of Python's, and a
command that is forked from it does what it does when it is started: its variables, folder, files and exit code are its
own. Beside each command is a process that waits for it, and ends before it if whoever asked for the command is gone;
the command then saves and stops, as any run does whose parent is gone.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy

from .processes import PARENT, waited_for

SOCKET = "VIKER_LIGHTNING_FORK_SERVER"
"""The variable that tells a run, and what it starts, where the server is."""

READ_WHEN_LOADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")
"""Variables that decide what is loaded and how, and may differ among commands: one that has others is not forked."""

PATIENCE = 60
"""Seconds to wait for a command to be forked, loading included, before it is started in the ordinary way."""

COMMANDS = "viker_lightning.cli.main"
"""Loads nearly all there is; nothing of it is called here."""

RUNS_LOAD = ("wandb.sdk.launch.inputs.internal", "rouge_score.rouge_scorer", "sacrebleu.metrics")
"""What a run loads later, where W&B is on, and answers are scored."""

THIS_PYTHON = [sys.executable, "-m"]


@contextmanager
def fork_server(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Starts a server for as long as it is needed.

    Args:
        environment: all its variables.

    Yields:
        The variable by which :func:`forked` finds it; none on a system without what it needs.
    """
    if sys.platform != "linux":  # elsewhere what has loaded torch cannot be forked safely
        yield {}
        return
    with TemporaryDirectory(prefix="viker-lightning-") as folder, socket.socket(socket.AF_UNIX) as listening:
        place = str(Path(folder) / "socket")  # the folder is the user's alone
        try:
            listening.bind(place)
        except OSError:  # its name is too long, or the disk has no sockets
            yield {}
            return
        listening.listen(64)
        number = listening.fileno()
        server = subprocess.Popen(
            [*THIS_PYTHON, __name__, str(number)],
            env=waited_for(environment),
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        listening.close()  # whoever asks when the server has ended is refused, and starts its command itself
        try:
            yield {SOCKET: place}
        finally:
            server.terminate()
            server.wait()


class Forked:
    """A command that was forked from the server.

    Attributes:
        pid: its process, which is no child of this one.
    """

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection, self.pid = connection, pid

    def wait(self, seconds: float | None = None) -> tuple[int, int] | None:
        """How it ended.

        Args:
            seconds: how long to wait for it; ``None`` for as long as it takes.

        Returns:
            Its exit code, negative for the signal that ended it, and the most main memory it held, as the system
            counts it: libraries that it shares with the server and has not used are left out. ``None`` if it has not
            ended. Where the process beside it was killed, nobody knows: it counts as killed, too.
        """
        self._connection.settimeout(seconds)
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return None
        with self._connection:
            told = _received(self._connection)
        return (told["exit_code"], told["memory"]) if told else (-signal.SIGKILL, 0)


def forked(command: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> Forked | None:
    """Has a command forked from the server, if there is one and the command can be.

    Args:
        command: program and arguments.
        environment: all its variables; one of them says where the server is.
        output: file descriptor of what it prints.
        errors: the same of its errors.

    Returns:
        The command at work; ``None`` if it is to be started in the ordinary way.
    """
    place = environment.get(SOCKET)
    if not place or [*command[:2]] != THIS_PYTHON:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        asked = {"words": [*command[2:]], "environment": {**environment}, "folder": os.getcwd()}
        connection.settimeout(PATIENCE)
        connection.connect(place)
        line = json.dumps(asked).encode() + b"\n"
        connection.sendall(line[socket.send_fds(connection, [line], [output, errors]) :])
        told = _received(connection)
    except OSError:  # the server is gone, or hangs
        told = {}
    if told:
        return Forked(connection, told["pid"])
    connection.close()
    return None


@dataclass(frozen=True)
class _Loaded:
    """What commands find as loading has left it.

    Attributes:
        read: :data:`READ_WHEN_LOADED`, as they were.
        added: variables that libraries have set.
        temporary: folders that libraries have made for as long as their process lives.
        interrupt: what happened at SIGINT before.
    """

    read: Mapping[str, str | None]
    added: Mapping[str, str]
    temporary: Sequence[TemporaryDirectory[str]]
    interrupt: Any


def serve(listening: socket.socket) -> list[str]:
    """Forks a process for every command that is asked for, until the process that started the server is gone.

    Returns:
        Module and arguments: in the process that is to be the command, and in no other.
    """
    parent, loaded = int(os.environ[PARENT]), _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those beside the commands
    listening.settimeout(1)
    while os.getppid() == parent:
        with suppress(TimeoutError), listening.accept()[0] as connection:
            if os.fork() == 0:
                listening.close()
                if words := _become(connection, loaded):
                    return words
                os._exit(0)
    shutil.rmtree(Path(listening.getsockname()).parent, ignore_errors=True)
    sys.exit()


def _load() -> _Loaded:
    given = {**os.environ}
    importlib.import_module(COMMANDS)
    for module in RUNS_LOAD:
        with suppress(ImportError):
            importlib.import_module(module)
    temporary = [one for one in gc.get_objects() if isinstance(one, TemporaryDirectory)]
    for folder in temporary:  # W&B's: the first command to end would remove it under the others
        folder.cleanup()
    gc.collect()
    gc.freeze()  # a command that ends need not look through all that was loaded
    return _Loaded(
        read={name: given.get(name) for name in READ_WHEN_LOADED},
        added={name: value for name, value in os.environ.items() if given.get(name) != value},
        temporary=temporary,
        interrupt=signal.signal(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C reaches all, and is the commands' to heed
    )


def _become(connection: socket.socket, loaded: _Loaded) -> list[str]:
    """Reads what is asked for, and forks once more.

    Returns:
        Module and arguments, in the command's process. Nothing in the one beside it, once the command has ended, or if
        there is to be none.
    """
    line, files, _, _ = socket.recv_fds(connection, 2**16, 2)
    while line and not line.endswith(b"\n"):
        more = connection.recv(2**16)
        line = line + more if more else b""
    asked = json.loads(line or "{}")
    refused = len(files) != 2 or not asked or any(asked["environment"].get(k) != v for k, v in loaded.read.items())
    if refused or _closed(connection, 0):
        return []
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    beside, pid = os.getpid(), os.fork()
    if pid:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to all, it is the command's to heed
        for file in files:
            os.close(file)
        _wait(connection, pid)
        return []
    connection.close()
    signal.signal(signal.SIGINT, loaded.interrupt)
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.path[:] = [asked["folder"] if one == os.getcwd() else one for one in sys.path]
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update({**loaded.added, **asked["environment"], PARENT: str(beside)})
    for folder in loaded.temporary:
        folder.__init__()  # type: ignore[misc]  # one of its own
    numpy.random.seed()  # as that of a process that was started; torch always begins with the same
    return list(asked["words"])


def _wait(connection: socket.socket, pid: int) -> None:
    """Tells whoever asked which process the command is, and how it has ended; returns before if they are gone."""
    with suppress(OSError):
        connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        while True:
            ended, status, used = os.wait4(pid, os.WNOHANG)
            if ended:
                told = {"exit_code": os.waitstatus_to_exitcode(status), "memory": used.ru_maxrss}
                connection.sendall(json.dumps(told).encode() + b"\n")
                return
            if _closed(connection, 0.1):
                return


def _closed(connection: socket.socket, seconds: float) -> bool:
    """Whether whoever asked is gone: they send nothing more, so that nothing is to be read until then."""
    return bool(select.select([connection], [], [], seconds)[0])


def _received(connection: socket.socket) -> dict[str, int]:
    """A line, read to its end; empty if the other side has closed before."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return {}
        line += byte
    return dict(json.loads(line))


def main() -> None:
    """The server; what is forked from it goes on here, and ends as a command does."""
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        module, *words = serve(listening)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
