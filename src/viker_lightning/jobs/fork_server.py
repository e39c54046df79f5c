"""A process that has everything loaded, and from which commands are forked: many short runs load torch but once.

``python -m viker_lightning.jobs.fork_server FD`` is it. It has touched no GPU and has no thread of Python's, and a
command that is forked from it does what it does when it is started: its variables, folder, files and exit code are its
own. The server waits for the commands, and tells one to save and stop if whoever asked for it is gone; where the server
is gone, they do so themselves, as any run does whose parent is gone.

Python's own fork server (``multiprocessing``) is none for commands: one that a command asks for loads everything again,
what a killed command held is not known, and nothing that is registered with ``atexit`` is done.
"""

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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy

from .processes import PARENT, Child, waited_for

SOCKET = "VIKER_LIGHTNING_FORK_SERVER"
"""The variable that tells a run, and what it starts, where the server is."""

READ_WHEN_LOADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")
"""Variables that decide what is loaded and how, and may differ among commands: one that has others is not forked."""

PATIENCE = 60
"""Seconds to wait for a command to be forked, loading included, before it is started in the ordinary way."""

COMMANDS = "viker_lightning.cli.main"
"""Loads nearly all there is; nothing of it is called here."""

LONGEST = 2**22
"""Bytes that are read of a message; the system takes none that is as long."""

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
    with TemporaryDirectory(prefix="viker-lightning-") as folder, _socket() as listening:
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
            server.kill()
            server.wait()


def forked(command: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> Child | None:
    """Has the server, if there is one and it can, fork a command; ``None``: it is to be started in the ordinary way.

    Args:
        command: program and arguments.
        environment: all its variables; one of them says where the server is.
        output: file descriptor of what it prints.
        errors: the same of its errors.
    """
    place = environment.get(SOCKET)
    if not place or [*command[:2]] != THIS_PYTHON:
        return None
    request = {"words": [*command[2:]], "environment": {**environment}, "folder": os.getcwd()}
    connection = _socket()
    connection.settimeout(PATIENCE)
    with suppress(OSError, ValueError):  # the server is gone, or hangs; or the command was killed at once
        connection.connect(place)
        socket.send_fds(connection, [json.dumps(request).encode()], [output, errors])
        if pid := connection.recv(LONGEST):
            connection.setblocking(False)
            return Child(int(pid), partial(_poll, connection))
    connection.close()
    return None


def _poll(connection: socket.socket) -> tuple[int, int] | None:
    """How the command has ended; where the server was killed, nobody knows, and it counts as killed, too."""
    try:
        line = connection.recv(LONGEST)
    except BlockingIOError:
        return None
    connection.close()
    return tuple(json.loads(line)) if line else (-signal.SIGKILL, 0)


def serve(listening: socket.socket) -> list[str]:
    """Forks a process for every command that is asked for, until the process that started the server is gone.

    It returns in the process that is to be the command, and in no other: module and arguments.
    """
    parent, before = int(os.environ[PARENT]), {**os.environ}
    temporary = _load()
    added = {name: value for name, value in os.environ.items() if before.get(name) != value}
    # Ctrl-C, and what a cluster sends to all, is the commands' to heed
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    clients: dict[int, socket.socket] = {}  # who asked, by the process of the command
    while os.getppid() == parent:
        ready = select.select([listening, *clients.values()], [], [], 0.1)[0]
        _look_after(clients, ready)
        if listening not in ready:
            continue
        client = listening.accept()[0]
        line, files, _, _ = socket.recv_fds(client, LONGEST, 2)
        request = json.loads(line or "{}")
        same = request and all(request["environment"].get(name) == before.get(name) for name in READ_WHEN_LOADED)
        if not same or select.select([client], [], [], 0)[0]:  # or whoever asked is gone
            client.close()
        elif pid := os.fork():
            clients[pid] = client
        else:
            for other in (listening, *clients.values()):
                other.close()
            _become(files, request["folder"], {**added, **request["environment"], PARENT: str(os.getppid())})
            for folder in temporary:
                folder.__init__()  # type: ignore[misc]  # one of its own
            for number, handler in handlers.items():
                signal.signal(number, handler)
            with client, suppress(OSError):
                client.send(str(os.getpid()).encode())  # it heeds SIGTERM from here on
            return list(request["words"])
        for file in files:
            os.close(file)
    shutil.rmtree(Path(listening.getsockname()).parent, ignore_errors=True)
    sys.exit()


def _look_after(clients: dict[int, socket.socket], ready: Collection[socket.socket]) -> None:
    """Tells who asked how a command has ended; has it save and stop if they are gone, for they send nothing else."""
    for pid, client in [*clients.items()]:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if client in ready and not ended:
            os.kill(pid, signal.SIGTERM)
        if client in ready or ended:
            with clients.pop(pid), suppress(OSError):
                client.send(json.dumps([os.waitstatus_to_exitcode(status), used.ru_maxrss]).encode())


def _load() -> list[TemporaryDirectory[str]]:
    """Imports what commands need; returns the folders that libraries have made, of which each command needs its own."""
    importlib.import_module(COMMANDS)
    for module in RUNS_LOAD:
        with suppress(ImportError):
            importlib.import_module(module)
    temporary = [thing for thing in gc.get_objects() if isinstance(thing, TemporaryDirectory)]
    for folder in temporary:  # W&B's: the first command to end would remove it under the others
        folder.cleanup()
    gc.collect()
    gc.freeze()  # a command that ends need not look through all that was loaded
    return temporary


def _become(files: Collection[int], folder: str, environment: Mapping[str, str]) -> None:
    """Makes this process, just forked, one that was started with these files, in this folder, with these variables."""
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.path[:] = [folder if path == os.getcwd() else path for path in sys.path]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    numpy.random.seed()  # as that of a process that was started; torch always begins with the same


def _socket() -> socket.socket:
    """Of messages that are sent and received as a whole."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def main() -> None:
    """The server; what is forked from it goes on here, and ends as a command does."""
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        module, *words = serve(listening)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
