"""A run that another one started ends with it, even if that was killed."""

import os
import subprocess
import sys

import pytest

from viker_lightning.cli.main import main
from viker_lightning.jobs.processes import PARENT, stop_with_parent, waited_for

CHILD = """
import os, time
from viker_lightning.jobs.processes import PARENT, stop_with_parent
stop_with_parent(0.05)
assert PARENT not in os.environ
print(os.getpid(), flush=True)
time.sleep(300)
"""

WAITS = """
import os, subprocess, sys
from viker_lightning.jobs.processes import waited_for
subprocess.run([sys.executable, "-c", sys.argv[1]], env=waited_for(os.environ))
"""


def test_a_child_ends_with_its_killed_parent():
    waits = subprocess.Popen([sys.executable, "-c", WAITS, CHILD], stdout=subprocess.PIPE, text=True)
    child = int(waits.stdout.readline())
    os.kill(child, 0)  # it is there
    waits.kill()
    waits.wait()
    assert waits.stdout.read() == "", "the pipe ends when the last process that could write is gone"


def test_it_is_asked_to_stop_as_by_anybody():
    """SIGTERM, so that a run saves its checkpoint."""
    asked = CHILD.replace("time.sleep(300)", "import signal; print(signal.sigwait([15]).name)")
    asked = asked.replace("import os, time", "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15])")
    waits = subprocess.Popen([sys.executable, "-c", WAITS, asked], stdout=subprocess.PIPE, text=True)
    waits.stdout.readline()
    waits.kill()
    waits.wait()
    assert waits.stdout.read().strip() == "SIGTERM"


def test_the_command_line_heeds_it(monkeypatch, tmp_path):
    monkeypatch.setenv(PARENT, "1" if os.getppid() != 1 else "2")
    with pytest.raises(SystemExit, match="the process that started this run is gone"):
        main(["fit", f"--trainer.default_root_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_alone_nothing_is_watched(monkeypatch):
    monkeypatch.delenv(PARENT, raising=False)
    monkeypatch.setattr("threading.Thread", None)
    stop_with_parent()
    assert waited_for({"A": "b"}) == {"A": "b", PARENT: str(os.getpid())}
