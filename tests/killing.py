"""Runs the command line in a forked process that can be killed for good; no import is paid twice."""

import os
import signal
import time
import traceback

import torch

from viker_lightning.cli import main


def run(arguments, output, prepare=lambda: None, after=None, number=signal.SIGKILL):
    """Runs ``main(arguments)`` in a process of its own.

    Args:
        arguments: of the command line.
        output: file for what it says.
        prepare: called in that process first.
        after: seconds after which it gets the signal; never by default.
        number: the signal.

    Returns:
        What ``os.waitpid`` says: the exit code, or minus the signal that killed it.
    """
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            torch.set_num_threads(1)
            prepare()
            main(arguments)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
            if isinstance(stop.code, str):
                os.write(2, stop.code.encode())
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    end = time.monotonic() + after if after is not None else None
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            os.kill(pid, number)
            end = None
        time.sleep(0.01)


def dies():
    """What a killed process does: nothing more."""
    os.kill(os.getpid(), signal.SIGKILL)
