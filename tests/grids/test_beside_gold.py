"""What a grid says where there is no terminal, and that vanilla and gold are made side by side."""

import io
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from support.commands import print_config
from support.grids import finish, small_grid
from viker_lightning.grids import read_grid
from viker_lightning.grids.beside_gold import VanillaFirst, vanilla_first
from viker_lightning.jobs.children import Ended
from viker_lightning.jobs.job import State
from viker_lightning.jobs.runner import _Shown, run_jobs
from viker_lightning.terminal import progress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """Of the demo, none of them run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return read_grid(Path("experiments/demo.yaml"), "mini", 1).cells(tmp_path)


def test_the_demo_makes_vanilla_beside_gold(cells):
    (first,) = vanilla_first(cells, 2)
    assert first.title == "Vanilla" and first.state() == State.MISSING and first.stage() == ""
    assert vanilla_first(cells, 1) == [], "one after the other, the first run makes it as well"
    finish(cells[0])
    assert vanilla_first(cells, 2) == [], "methods have nothing to wait for any more"


def test_golds_that_keep_all_cores_busy_are_left_alone(tmp_path, cells, monkeypatch):
    many = read_grid(small_grid(tmp_path), "mini", 1).cells(tmp_path / "runs")  # a gold model for each of two ratios
    assert vanilla_first(many, 2) == [] and len(vanilla_first(many, 3)) == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert vanilla_first(many, 3) == [], "a GPU makes gold's judge before gold"


def test_it_is_made_by_a_command_that_asks_nothing(cells, monkeypatch):
    typed = []

    def run_child(command, environment, log, append, stop):
        typed.append((command, environment))
        log.write_text("training 3/450, 1:02 left\n")
        return Ended(0, 1.0, 1, None)

    monkeypatch.setattr("viker_lightning.jobs.job.run_child", run_child)
    (first,) = vanilla_first(cells, 2)
    assert first.run({"OMP_NUM_THREADS": "1"}) == first.state() == State.FINISHED
    assert first.stage() == "training 3/450, 1:02 left"
    ((command, environment),) = typed
    assert (
        command[:4] == [sys.executable, "-m", "viker_lightning", "validate"] and environment["OMP_NUM_THREADS"] == "1"
    )
    config, ordinary = print_config(command[3:]), print_config(cells[1].arguments)
    assert config["data"] == ordinary["data"] and config["trainer"]["limit_val_batches"] == 0
    assert config["model"]["init_args"]["vanilla"] == ordinary["model"]["init_args"]["vanilla"]


@pytest.mark.parametrize("exit_code", [0, 1])
def test_runs_come_to_an_end_whether_it_can_be_made_or_not(cells, monkeypatch, exit_code):
    """They say themselves what is wrong."""
    ended = Ended(exit_code, 1.0, 1, None)
    monkeypatch.setattr("viker_lightning.jobs.job.run_child", lambda *_: ended)
    first = VanillaFirst(cells[1])
    done = SimpleNamespace(title="one", state=lambda: State.MISSING, run=lambda *_: State.FINISHED, stage=str)
    assert run_jobs([first, done], 2, Console(file=io.StringIO())) == ([first] if exit_code else [])


def test_a_pipe_is_told_how_far_a_grid_is(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    console = Console(file=io.StringIO())
    gold, npo = (SimpleNamespace(title=name, stage=lambda: "training 9/450, 1:02 left") for name in ("Gold", "NPO"))
    npo.stage = str  # it waits for gold
    with (shown := _Shown(9, "runs", 2, console)):
        for _ in range(70):
            now[0] += 1
            shown.look([gold, npo])
        shown.ended(gold)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "9 runs, 2 at a time"
    assert lines[1] == "0 of 9 runs, 0:05 elapsed; Gold: training 9/450, 1:02 left; NPO"
    assert lines[-1] == "1 of 9 runs, 1:10 elapsed, about 9:20 left; Gold has ended" and len(lines) == 16
    monkeypatch.setenv("CI", "true")
    console = Console(file=io.StringIO())
    with (shown := _Shown(9, "runs", 2, console)):
        shown.ended(gold)
    assert console.file.getvalue() == ""


def test_two_run_at_a_time(monkeypatch):
    """Each waits for the other: one after the other, they would wait for ever."""
    both = threading.Barrier(2, timeout=60)

    def run(*_):
        both.wait()
        return State.FINISHED

    jobs = [SimpleNamespace(title=name, state=lambda: State.MISSING, run=run, stage=str) for name in ("NPO", "GA")]
    assert run_jobs(jobs, 2, Console(file=io.StringIO())) == []
