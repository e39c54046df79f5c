"""A command that is forked from a process with everything loaded does what it does when it is started."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from viker_lightning.jobs import children
from viker_lightning.jobs.children import call_child, run_child
from viker_lightning.jobs.fork_server import SOCKET, fork_server, forked
from viker_lightning.jobs.processes import PARENT

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere commands are always started"),
]

TOLD = """
import atexit, json, os, sys
atexit.register(print, "at exit")
told = {"argv": sys.argv[1:], "file": os.path.basename(sys.argv[0]), "name": __name__, "folder": os.getcwd()}
told |= {"A": os.environ.get("A"), "B": os.environ.get("B"), "stdin": sys.stdin.read(), "here": os.getcwd() in sys.path}
told |= {"parent": os.environ["VIKER_LIGHTNING_PARENT"] == str(os.getppid()), "blocked": sys.stdout.line_buffering}
print(json.dumps(told))
print("an error", file=sys.stderr)
"""

WAITS = """
import signal, sys, time
from pathlib import Path
from viker_lightning.jobs.processes import stop_with_parent
def stop(*_):
    Path(sys.argv[1]).write_text("saved")
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
stop_with_parent(0.05)
print("at work", flush=True)
time.sleep(60)
"""

ENDS = {
    "pass": 0,
    "import sys; sys.exit(3)": 3,
    "import sys; sys.exit('error: so it was')": 1,
    "raise ValueError('in vain')": 1,
    "import os; os.kill(os.getpid(), 9)": -9,
    "import os; os._exit(7)": 7,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with modules, where the server and its commands are."""
    folder, before = tmp_path_factory.mktemp("place"), os.getcwd()
    (folder / "told.py").write_text(TOLD)
    (folder / "waits.py").write_text(WAITS)
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def served(place):
    """Variables of commands, with a server."""
    given = {**os.environ, "OMP_NUM_THREADS": "1"}
    with fork_server({**given, "B": "of the server"}) as where:
        yield given | where


def command(module, *words):
    return [sys.executable, "-m", module, *map(str, words)]


def run(words, environment, log, append=False):
    return run_child(words, environment, log, append, threading.Event())


def at_work(log):
    """Waits until a command has begun."""
    for _ in range(1200):
        if log.exists() and "at work" in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text() if log.exists() else "it has no log")


def test_it_is_what_a_started_command_is(served, place):
    """Words, variables, folder, files, and what is done at the end."""
    logs, memory = [], []
    for environment in (served, {name: value for name, value in served.items() if name != SOCKET}):
        log = place / "log.txt"
        log.write_text("before\n")
        ended = run(command("told", "a b", "--c=d"), {**environment, "A": "given"}, log, append=True)
        assert ended.exit_code == 0 and ended.seconds > 0 and ended.interrupted is None
        logs.append(log.read_text().splitlines())
        memory.append(ended.peak_memory_bytes)
    assert sorted(logs[0]) == sorted(logs[1]) and logs[0][0] == "before"
    told = json.loads(next(line for line in logs[0] if line.startswith("{")))
    assert told["argv"] == ["a b", "--c=d"] and told["A"] == "given" and told["B"] is None and told["parent"]
    assert told["folder"] == str(place) and told["here"] and told["stdin"] == ""
    assert memory[0] > 2**28 > 2**20 < memory[1], "bytes; one that is forked has torch in it"


@pytest.mark.parametrize("code", ENDS)
def test_it_ends_as_a_started_command_does(served, place, code):
    (place / "ends.py").write_text(code)
    alone = {name: value for name, value in served.items() if name != SOCKET}
    ended = [run(command("ends"), environment, place / "log.txt").exit_code for environment in (served, alone)]
    assert ended == [ENDS[code]] * 2


def test_an_error_of_the_command_line_is_in_its_log(served, place):
    assert run(command("viker_lightning", "fit", "--nonsense=1"), served, place / "log.txt").exit_code == 1
    assert (place / "log.txt").read_text().startswith("error: --nonsense")


def test_several_at_once_and_each_is_told_to_stop_alone(served, place):
    stops, ended = [threading.Event(), threading.Event()], {}

    def work(number):
        words = command("waits", place / f"saved{number}")
        ended[number] = run_child(words, served, place / f"log{number}.txt", False, stops[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for number in (1, 0):
        at_work(place / f"log{number}.txt")
    for number in (1, 0):
        assert number not in ended
        stops[number].set()
        threads[number].join(20)
        assert ended[number].exit_code == 5 and isinstance(ended[number].interrupted, KeyboardInterrupt)
        assert (place / f"saved{number}").read_text() == "saved"


def test_it_ends_with_whoever_asked_for_it(served, place):
    """Even if that was killed: the run saves and stops."""
    asks = "import os, sys; from viker_lightning.jobs.children import call_child; call_child(sys.argv[1:], os.environ)"
    words = [sys.executable, "-c", asks, *command("waits", place / "saved")]
    with (place / "asks.txt").open("w") as log:
        asking = subprocess.Popen(words, env=served, stdout=log)
        at_work(place / "asks.txt")
        asking.kill()
        asking.wait()
    for _ in range(200):
        if (place / "saved").exists() and (place / "saved").read_text():
            break
        time.sleep(0.05)
    assert (place / "saved").read_text() == "saved"


def test_it_prints_where_this_process_does(served, place, capfd):
    (place / "says.py").write_text("import sys; print('said'); print('wrong', file=sys.stderr); sys.exit(4)")
    assert call_child(command("says"), served) == 4
    assert capfd.readouterr() == ("said\n", "wrong\n")


def test_what_is_read_when_torch_is_loaded_must_be_the_same(served):
    """Else it is started in the ordinary way, as another program is, or where nobody serves."""
    for words, change in [
        (command("told"), {"OMP_NUM_THREADS": "2"}),
        ([sys.executable, "-c", "pass"], {}),
        (["true"], {}),
        (command("told"), {SOCKET: ""}),
        (command("told"), {SOCKET: "/nowhere"}),
    ]:
        assert forked(words, served | change, 1, 2) is None, (words, change)


def test_ctrl_c_does_not_end_the_server_and_its_end_is_no_harm(place):
    given = {**os.environ, "OMP_NUM_THREADS": "1"}
    (place / "ends.py").write_text("import sys; sys.exit(3)")
    others = servers()
    with fork_server(given) as where:
        assert run(command("ends"), given | where, place / "log.txt").exit_code == 3
        (server,) = servers() - others
        os.kill(server, signal.SIGINT)
        child = forked(command("ends"), given | where, 1, 2)
        assert child is not None and child.wait() == (3, pytest.approx(2**19, rel=1)), "it has survived"
        os.kill(server, signal.SIGKILL)
        while forked(command("ends"), given | where, 1, 2):
            time.sleep(0.05)
        assert run(command("ends"), given | where, place / "log.txt").exit_code == 3, "started in the ordinary way"


def servers():
    """Those that this process has started."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            ours = f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text()
            found |= {int(pid)} if ours and "viker_lightning.jobs.fork_server" in words else set()
    return found


def test_a_server_ends_with_the_process_that_started_it(place):
    starts = "import os, time; from viker_lightning.jobs.fork_server import *; serves = fork_server(os.environ)"
    code = f"{starts}; print(*serves.__enter__().values(), flush=True); time.sleep(60)"
    starting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    where = {SOCKET: starting.stdout.readline().strip()}
    (place / "ends.py").write_text("pass")
    child = forked(command("ends"), {**os.environ, **where}, 1, 2)
    assert child is not None and child.wait()[0] == 0
    starting.kill()
    starting.wait()
    for _ in range(100):
        if forked(command("ends"), {**os.environ, **where}, 1, 2) is None:
            return
        time.sleep(0.05)
    raise AssertionError("it still serves")


def test_one_that_is_still_loading_ends_with_it_too(place):
    """It is told who started it, and need not look."""
    starts = "import os, time; from viker_lightning.jobs.fork_server import *; serves = fork_server(os.environ)"
    code = f"{starts}; print(*serves.__enter__().values(), flush=True); time.sleep(60)"
    starting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    where = Path(starting.stdout.readline().strip())
    assert where.exists()
    starting.kill()
    starting.wait()
    for _ in range(1200):
        if not where.parent.exists():
            return
        time.sleep(0.05)
    raise AssertionError("it still serves, or has left its folder")


TEMPORARY = """
import os, sys, wandb
from wandb.sdk.data_types._private import MEDIA_TMP
assert os.path.isdir(MEDIA_TMP.name), MEDIA_TMP.name
open(os.path.join(MEDIA_TMP.name, "page.html"), "w").close()
print(MEDIA_TMP.name, os.environ["WANDB_MODE"], os.environ.get("KMP_INIT_AT_FORK"))
"""


def test_what_a_library_makes_for_its_process_is_made_for_each(served, place):
    """W&B's folder of pages and tables goes with the first command that ends."""
    (place / "media.py").write_text(TEMPORARY)
    said = []
    for environment in (served, served, {name: value for name, value in served.items() if name != SOCKET}):
        assert run(command("media"), environment, place / "log.txt").exit_code == 0, (place / "log.txt").read_text()
        said.append((place / "log.txt").read_text().split())
        assert not Path(said[-1][0]).exists()
    assert len({folder for folder, *_ in said}) == 3
    assert said[0][1:] == said[1][1:]


SAVES = WAITS.replace("Path(sys.argv[1])", "time.sleep(1); Path(sys.argv[1])")


def test_a_signal_to_all_is_heeded_by_the_command(place):
    """As from a cluster: what waits for it waits until it has saved."""
    (place / "saves.py").write_text(SAVES)
    (place / "saved").unlink(missing_ok=True)
    asks = """
import os, signal, sys, threading
from pathlib import Path
from viker_lightning.jobs.children import run_child
from viker_lightning.jobs.fork_server import SOCKET, fork_server
signal.signal(signal.SIGTERM, signal.default_int_handler)
with fork_server(os.environ) as where:
    ended = run_child(sys.argv[2:], {**os.environ, **where}, Path(sys.argv[1]), False, threading.Event())
print(type(ended.interrupted).__name__, ended.exit_code, Path(sys.argv[-1]).read_text())
"""
    words = [sys.executable, "-c", asks, str(place / "all.txt"), *command("saves", place / "saved")]
    asking = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    at_work(place / "all.txt")
    os.killpg(asking.pid, signal.SIGTERM)
    assert asking.communicate(timeout=60)[0] == "KeyboardInterrupt 5 saved\n"


@pytest.mark.parametrize("change", [{"platform": "darwin"}, {"folder": "x" * 120}])
def test_without_a_server_commands_are_started(monkeypatch, tmp_path, change):
    if "platform" in change:
        monkeypatch.setattr("viker_lightning.jobs.fork_server.sys.platform", change["platform"])
    else:
        (tmp_path / change["folder"]).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / change["folder"]))
    monkeypatch.setattr("viker_lightning.jobs.fork_server.subprocess.Popen", None)
    with fork_server(os.environ) as where:
        assert where == {}


def test_a_started_command_is_told_who_waits(monkeypatch, tmp_path):
    """So that it stops if nobody waits any more."""
    seen = []
    real = subprocess.Popen

    def start(words, env, **files):
        seen.append(env[PARENT])
        return real(words, env=env, **files)

    monkeypatch.setattr(children.subprocess, "Popen", start)
    assert run(["true"], {"A": "b"}, tmp_path / "log.txt").exit_code == 0
    assert seen == [str(os.getpid())]


def test_a_grid_on_a_processor_has_one(monkeypatch, place, tmp_path):
    """Where several runs are left; its jobs are forked."""
    import torch
    from rich.console import Console

    from viker_lightning.jobs import runner
    from viker_lightning.jobs.job import State

    monkeypatch.setattr(runner, "fork_server", fork_server)
    monkeypatch.setattr("viker_lightning.jobs.children.subprocess", None)  # none is started
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    class Job:
        def __init__(self, number):
            self.title, self.log, self.ended = str(number), tmp_path / f"{number}.txt", State.MISSING

        def state(self):
            return self.ended

        def run(self, environment, stop):
            variables = {**os.environ, **environment}
            ended = run_child(command("told", self.title), variables, self.log, False, stop)
            self.ended = State.FAILED if ended.exit_code else State.FINISHED
            return self.ended

        def stage(self):
            return ""

        def complaint(self):
            return self.log.read_text()

    jobs = [Job(number) for number in range(3)]
    with (tmp_path / "said.txt").open("w") as said:
        assert runner.run_jobs(jobs, 2, Console(file=said)) == []
    assert [json.loads(job.log.read_text().splitlines()[0])["argv"] for job in jobs] == [["0"], ["1"], ["2"]]
    assert runner._loaded_once([{}], 1).__enter__() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runner._loaded_once([{}], 2).__enter__() == {}, "CUDA outlives no fork"
