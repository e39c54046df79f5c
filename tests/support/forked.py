"""Processes forked from this one: they know all that was imported here, so that none of them pays for it again."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from subprocess import DEVNULL
from types import SimpleNamespace

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from viker_lightning.attacks.__main__ import main as attack
from viker_lightning.cli.main import main


def start(do, output, environment=None):
    """Calls ``do`` in a process of its own.

    Args:
        do: what to do; its ``SystemExit`` is the end of the process, a message goes to standard error.
        output: file for what the process says, or its descriptor; a pair: for standard output and standard error.
        environment: all of its variables; by default those of this process.

    Returns:
        The ID of the process.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        for number, file in enumerate(output if isinstance(output, tuple) else (output, output), start=1):
            os.dup2(file if isinstance(file, int) else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        logging.getLogger().handlers.clear()  # pytest's
        torch.set_num_threads(1)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        do()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            os.write(2, stop.code.encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def ended(pid):
    """The exit code, or minus the signal that killed it; ``None`` while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait(pid):
    """The same when it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def popen(command, env, stdout, **_):
    """Stands for ``subprocess.Popen`` where the package starts one of its own command lines."""
    assert command[:2] == [sys.executable, "-m"]
    commands = {"viker_lightning": main, "viker_lightning.attacks": attack}
    return SimpleNamespace(pid=start(lambda: commands[command[2]](command[3:]), stdout, env), returncode=None)


subprocess = SimpleNamespace(Popen=popen, DEVNULL=DEVNULL)
"""Stands for the module where the package starts runs; elsewhere it starts other programs with the real one."""


def launch(do, folder, world=2, timeout=400, again=True):
    """Calls ``do`` in several processes at once, which find in their environment what torchrun tells its own.

    The first that fails ends all of them, and so does a time-out. A fork of a process that has had threads dies of its
    allocator at times, one in some hundred: then all are started once more, with a warning.

    Args:
        do: what each of them does.
        folder: for what they say, ``out-0`` and ``err-0`` being the first one's.
        world: how many.
        timeout: seconds.

    Returns:
        What all of them wrote to standard output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"}
    job |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0"}

    def task(rank):
        def ranked():
            rank_zero_only.rank = rank  # Lightning has looked for it when it was imported
            do()

        output = (folder / f"out-{rank}", folder / f"err-{rank}")
        return start(ranked, output, {**os.environ, **job, "RANK": str(rank), "LOCAL_RANK": str(rank)})

    running = {task(rank): rank for rank in range(world)}
    end, failed = time.monotonic() + timeout, {}
    while running:
        for pid in [*running]:
            if (code := ended(pid)) is not None:
                rank = running.pop(pid)
                if code:
                    failed[rank] = code
        if running and (failed or time.monotonic() > end):
            for pid, rank in running.items():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                failed.setdefault(rank, "killed")
            break
        time.sleep(0.01)
    if again and {-signal.SIGABRT, -signal.SIGSEGV} & {*failed.values()}:
        warnings.warn(f"exit codes by process: {failed}; started again", stacklevel=2)
        return launch(do, folder / "again", world, timeout, again=False)
    said = "\n".join((folder / f"err-{rank}").read_text()[-3000:] for rank in failed)
    assert not failed, f"exit codes by process: {failed}\n{said}"
    return "".join((folder / f"out-{rank}").read_text() for rank in range(world))
