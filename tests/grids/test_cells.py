"""What a cell notes about its run, over all the times it was started."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from support.grids import finish, small_grid
from viker_lightning.grids import Cell, read_grid
from viker_lightning.grids.__main__ import main
from viker_lightning.jobs import children
from viker_lightning.jobs.job import State

ROOT = Path(__file__).parents[2]
LOOP = "while true; do sleep 0.05; done\n"


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A cell that was stopped after 100 seconds; run again, it ends at once."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    cell = read_grid(small_grid(tmp_path), "mini", 1).cells(tmp_path / "runs")[0]
    finish(cell)
    (cell.folder / "checkpoints").mkdir()
    (cell.folder / "checkpoints/last.ckpt").touch()
    change(
        cell, exit_code=143, peak_memory_bytes=2**40
    )  # a child starts with the memory of the large process that tests
    assert cell.state() == State.FAILED
    return cell


def change(cell, **values):
    file = cell.folder / "cell.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_time_adds_up_and_the_largest_memory_counts(stopped):
    assert stopped.run() == State.FINISHED
    note = stopped.note()
    assert note["exit_code"] == 0 and note["seconds"] >= 100 and note["peak_memory_bytes"] == 2**40
    change(stopped, exit_code=143, peak_memory_bytes=1)
    assert stopped.run() == State.FINISHED
    assert stopped.note()["peak_memory_bytes"] > 1


def test_what_is_no_part_of_the_run_does_not_count(stopped):
    change(stopped, fingerprint="other", seconds=1e6)
    stopped.run()
    assert stopped.note()["seconds"] < 1e6 and stopped.note()["peak_memory_bytes"] < 2**40
    change(stopped, exit_code=1, seconds=1e6)
    (stopped.folder / "checkpoints/last.ckpt").unlink()
    stopped.run()
    assert stopped.note()["seconds"] < 1e6, "it had to start over"


def test_an_interrupted_part_counts(stopped, monkeypatch):
    wait, calls = os.wait4, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return wait(*args)

    monkeypatch.setattr(os, "wait4", interrupted)
    (stopped.folder / "results.json").unlink()
    clock = SimpleNamespace(monotonic=chain([0.0], repeat(50.0)).__next__)  # other threads keep theirs
    monkeypatch.setattr(children, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert stopped.state() == State.STARTED and stopped.note()["seconds"] == 150


@pytest.mark.parametrize("content", [b"[]", b"3", b"\xff\xfe{", b"[" * 99_999, b"{", b"{}"])
def test_what_is_no_note_counts_as_none(stopped, content):
    (stopped.folder / "cell.json").write_bytes(content)
    assert stopped.note() == {} and stopped.state() == State.MISSING


def test_whatever_a_run_reads_makes_it_another_run(tmp_path, monkeypatch):
    """The command, its YAML and that of its vanilla model, a file or folder of people, the gold model; nothing else.

    Also while the process that has read them before goes on.
    """
    monkeypatch.chdir(tmp_path)
    data, weights = tmp_path / "people.jsonl", tmp_path / "weights"
    weights.mkdir()
    for file in (data, weights / "model.safetensors", tmp_path / "image.txt"):
        file.write_text("a")
    init = {"vanilla": "vanilla.yaml"}
    run = {"model": {"init_args": init}, "data": {"init_args": {"root": str(data)}}}
    Path("run.yaml").write_text(yaml.safe_dump(run | {"trainer": {"default_root_dir": "."}}))
    Path("vanilla.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"base": str(weights)}}}))
    gold = Cell("g", "", "Gold", 0, "run.yaml", {}, tmp_path / "runs/gold")
    cell = Cell("g", "", "ViKeR", 0, "run.yaml", {"evaluation.gold": str(gold.folder)}, tmp_path / "runs/viker", gold)
    seen = [cell.fingerprint()]
    (tmp_path / "image.txt").write_text("other")
    assert cell.fingerprint() == seen[0]
    moved = replace(gold, folder=tmp_path / "other/gold")
    options = {"evaluation.gold": str(moved.folder)}
    assert replace(cell, folder=tmp_path / "other/viker", gold=moved, options=options).fingerprint() == seen[0]
    for file in (data, weights / "model.safetensors", weights / "more.json"):
        file.write_text("changed")
        seen.append(cell.fingerprint())
    for name in ("run.yaml", "vanilla.yaml"):
        Path(name).write_text(Path(name).read_text() + "\nseed_everything: 1\n")
        seen.append(cell.fingerprint())
    seen.append(replace(cell, options=cell.options | {"model.lr": 1e-3}).fingerprint())
    seen.append(replace(cell, gold=replace(gold, options={"data.forget": 5})).fingerprint())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("where", ["config", "option", "grid"])
def test_a_changed_method_file_makes_it_another_run(tmp_path, monkeypatch, where):
    """Also a file that it imports from beside it; whether the YAML or an option names the class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_loss_of_cells.py").write_text("import my_part_of_cells")
    (tmp_path / "my_part_of_cells.py").write_text("1")
    config = {"model": {"init_args": {"method": {"class_path": "my_loss_of_cells.Mine"}}}} if where == "config" else {}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config or {"seed_everything": 0}))
    options = {"option": {"model.method": "my_loss_of_cells.Mine"}, "config": {}}
    options["grid"] = {"model.method": {"class_path": "my_loss_of_cells.Mine"}}
    cell = Cell("g", "", "Mine", 0, "run.yaml", options[where], tmp_path / "runs/mine")
    finished = {cell.fingerprint()}
    for name in ("my_loss_of_cells.py", "my_part_of_cells.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\nother = 1")
        finished.add(cell.fingerprint())
    (tmp_path / "unrelated.py").write_text("1")
    finished.add(cell.fingerprint())
    assert len(finished) == 3


def test_runs_where_no_folder_can_be(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=r"--runs: /proc/x cannot be made \(.*\); give another folder"):
        main(["run", "experiments/demo.yaml", "--scale=mini", "--seeds=1", "--runs=/proc/x"])


@pytest.mark.parametrize("command", ["run", "cell"])
def test_the_cell_alone_is_the_run_of_a_sweep(tmp_path, monkeypatch, command):
    """Not its gold model; and of a whole grid no run is. No run takes itself for one of SLURM's processes."""
    monkeypatch.chdir(ROOT)
    run = tmp_path / "run"
    run.write_text(
        "#!/bin/sh\nfor last; do :; done\nfolder=${last#*=}\necho {} > $folder/results.json; env > $folder/env"
    )
    run.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(run))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "SLURM_NTASKS", "WANDB_MODE"):
        monkeypatch.setenv(name, "1")
    grid = small_grid(tmp_path)
    cells = read_grid(grid, "mini", 1).cells(tmp_path / "runs")
    monkeypatch.setattr("viker_lightning.grids.__main__._show", lambda *_: None)
    main([command, str(grid), f"--runs={tmp_path / 'runs'}", "--scale=mini", "--seeds=1", f"--number={len(cells) - 1}"])
    made = {cell.row: (cell.folder / "env").read_text() for cell in cells if cell.folder.exists()}
    assert set(made) == ({"Gold", "ViKeR"} if command == "cell" else {"Gold", "NPO", "ViKeR"})
    for row, environment in made.items():
        assert "WANDB_MODE=1" in environment and "SLURM_NTASKS" not in environment
        swept = [f"WANDB_{name}_ID=1" in environment for name in ("RUN", "SWEEP")]
        assert swept == [command == "cell" and row == "ViKeR"] * 2


@pytest.mark.parametrize("command", ["run", "cell"])
def test_sigterm_lets_the_run_save(tmp_path, monkeypatch, command):
    """In a thread of ``run``, and in the main thread of ``cell``."""
    monkeypatch.chdir(ROOT)
    run = tmp_path / "run"
    run.write_text(f"#!/bin/sh\ntrap 'touch {tmp_path}/saved; exit 143' TERM\ntouch {tmp_path}/started\n{LOOP}")
    run.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(run))
    grid, seen = small_grid(tmp_path), signal.getsignal(signal.SIGTERM)
    cells = read_grid(grid, "mini", 1).cells(tmp_path / "runs")
    place = [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path}", "--scale=mini", "--seeds=1", "--jobs=1"]

    def terminate():
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(SystemExit, match="stopped; the same command resumes"):
        main([command, str(grid), *place, "--number=0"])
    assert (tmp_path / "saved").exists() and signal.getsignal(signal.SIGTERM) == seen
    assert [cell.state() for cell in cells] == [State.STARTED] + [State.MISSING] * (len(cells) - 1)
    assert cells[0].note()["seconds"] > 0
