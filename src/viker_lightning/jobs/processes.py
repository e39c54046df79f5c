"""Runs that start runs: one that was started does not outlive the one that waits for it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

PARENT = "VIKER_LIGHTNING_PARENT"
"""The variable by which a run is told the process that waits for it."""

LAUNCHED = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")
LAUNCHERS = ("MASTER_", "SLURM_", "TORCHELASTIC_")
"""What a launcher tells its processes."""

SWEPT = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
"""What a W&B agent tells the run that it starts: one of its sweep, under an ID of its own."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def by_itself(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a run that is none of a launcher's processes, nor the run of a W&B sweep."""
    mute = {*LAUNCHED, *SWEPT}
    return {name: v for name, v in environment.items() if name not in mute and not name.startswith(LAUNCHERS)}


def waited_for(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a run that this process waits for."""
    return {**environment, PARENT: str(os.getpid())}


@dataclass(frozen=True)
class Child:
    """A command in a process of its own.

    Attributes:
        pid: its process.
        poll: looks whether it has ended, and once it has, no more. It returns the exit code, negative for the signal
            that ended it, and the most main memory it held, as the system counts it; until then ``None``.
    """

    pid: int
    poll: Callable[[], tuple[int, int] | None]

    def wait(self, stop: threading.Event | None = None) -> tuple[int, int]:
        """What ``poll`` returns, once it has ended.

        Raises:
            KeyboardInterrupt: as soon as ``stop`` is set.
        """
        while not (ended := self.poll()):
            if stop and stop.is_set():
                raise KeyboardInterrupt
            time.sleep(0.05)
        return ended

    def stop(self) -> tuple[int, int]:
        """Has it write a checkpoint and stop, and waits for that."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        return self.wait()


def stop_with_parent(every: float = 1.0) -> bool:
    """Sends this process SIGTERM once the process that waits for it is gone, however it ended; says whether one waits.

    The run then saves a checkpoint and stops. Without a waiting process nothing happens.
    """
    parent = os.environ.pop(PARENT, None)  # it is not the parent of what this process starts
    if parent is None:
        return False
    if os.getppid() != int(parent):
        sys.exit("error: the process that started this run is gone")

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    return True
