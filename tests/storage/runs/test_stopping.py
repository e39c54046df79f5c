"""Signals, full disks and kills at any moment: nothing is lost, and what happened is said in one line."""

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import time
from importlib import import_module
from mmap import mmap
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from support.killing import command, dies, in_step, run, same, slurm_task, stand_in_repository
from viker_lightning.__main__ import main
from viker_lightning.cli import main as cli
from viker_lightning.errors import UserError
from viker_lightning.storage.runs import CheckpointFile, first_process, lock
from viker_lightning.terminal.failures import ending_in_one_line, one_line, what_to_do
from viker_lightning.training import Unlearn
from viker_lightning.training.callbacks import Evaluation, Stopped


@pytest.fixture(autouse=True)
def here(monkeypatch):
    stand_in_repository(monkeypatch)


def at(step, do):
    """Does something in the middle of a step."""
    before = Unlearn.on_before_optimizer_step

    def on_step(self, optimizer):
        if self.global_step == step:
            do()
        before(self, optimizer)

    return lambda: setattr(Unlearn, "on_before_optimizer_step", on_step)


def during(moment, do):
    """Does something in an evaluation."""
    evaluate = Evaluation.evaluate

    def evaluation(self, trainer, pl_module, when):
        if when == moment:
            do()
        return evaluate(self, trainer, pl_module, when)

    return lambda: setattr(Evaluation, "evaluate", evaluation)


def starting(do):
    """Does something before a run trains, or goes on to."""
    start = Evaluation.on_train_start
    return lambda: setattr(Evaluation, "on_train_start", lambda self, *run: (do(), start(self, *run)))


def test_what_to_go_on_from(tmp_path):
    """A checkpoint that ``last`` would not find is named."""
    line = Stopped(signal.SIGTERM, 3, tmp_path / "other.ckpt", last=False).line
    assert line.endswith(f"resume with the same command and --ckpt_path {tmp_path / 'other.ckpt'}")
    assert Stopped(signal.SIGTERM, 0, None).line == "stopped by SIGTERM after step 0; nothing was trained yet"


@pytest.mark.extended
def test_signals_stop_a_run_without_loss(whole, base_folder, tmp_path):
    again = command(tmp_path, base_folder, "--ckpt_path=last")
    said = tmp_path / "said"

    def reached():
        return CheckpointFile().load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"]

    stops = [
        (signal.SIGTERM, lambda do: at(0, do), 1),
        (signal.SIGINT, lambda do: during("epoch 1", do), 3),
        (signal.SIGINT, starting, 3),
        (signal.SIGTERM, lambda do: during("after", do), 8),
    ]
    for number, when, step in stops:
        code = run(again, said, when(lambda number=number: signal.raise_signal(number)))
        assert code == 128 + number, said.read_text()
        assert f"stopped by {number.name} after step {step};" in said.read_text()
        assert "--ckpt_path last" in said.read_text() and "Traceback" not in said.read_text()
        assert reached() == step
    assert run(again, said) == 0
    assert run(again, said) == 0
    assert "is finished (8 steps of 8)" in said.read_text()
    said.unlink()
    same(whole("npo"), tmp_path)


@pytest.mark.extended
def test_slurm_tells_a_run_to_stop(whole, base_folder, tmp_path):
    """As everywhere, whether the time is up or somebody cancels the job: requeueing has another signal."""
    again, said = command(tmp_path, base_folder, "--ckpt_path=last"), tmp_path / "said"

    def on_slurm(change=lambda: None):
        return lambda: (os.environ.update(slurm_task()), change())

    def terminated():
        signal.raise_signal(signal.SIGTERM)

    def requeued():
        signal.raise_signal(signal.SIGUSR1)

    assert run(again, said, on_slurm(during("before", lambda: (requeued(), terminated())))) == 128 + signal.SIGTERM
    assert "SIGUSR1: requeueing after this step" in said.read_text() and not list(tmp_path.glob("hpc_ckpt*"))
    assert "stopped by SIGTERM after step 0; nothing was trained yet" in said.read_text()
    assert run(again, said, on_slurm(at(4, terminated))) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step 5;" in said.read_text() and "--ckpt_path last" in said.read_text()
    assert run(again, said, on_slurm(during("after", terminated))) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step 8;" in said.read_text()
    assert run(again, said, on_slurm(during("after", requeued))) == 0
    assert "SIGUSR1: every step is taken and saved, the last evaluation goes on" in said.read_text()
    said.unlink()
    same(whole("npo"), tmp_path)


@pytest.mark.extended
@pytest.mark.parametrize("hook", ["on_before_optimizer_step", "on_train_batch_start"])
def test_a_requeued_job_takes_no_step_twice(hook, whole, base_folder, tmp_path):
    """Lightning saves when the running step is over; here SLURM kills the job as soon as it is requeued."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f"#!/bin/sh\necho $* >> {tools / 'asked'}\nkill -9 $PPID\n")
    (tools / "scontrol").chmod(0o755)
    again, said = command(tmp_path / "run", base_folder, "--ckpt_path=last"), tmp_path / "said"
    before = getattr(Unlearn, hook)

    def signalled(self, *given):
        if self.global_step == 3:
            signal.raise_signal(signal.SIGUSR1)
        return before(self, *given)

    def first():
        os.environ.update(slurm_task(), PATH=f"{tools}:{os.environ['PATH']}")
        setattr(Unlearn, hook, signalled)

    assert run(again, said, first) == -signal.SIGKILL, said.read_text()
    assert (tools / "asked").read_text() == "requeue 4242\n"
    saved = CheckpointFile().load_checkpoint(tmp_path / "run/hpc_ckpt_1.ckpt")
    assert saved["global_step"] == 4
    assert run(again, said, lambda: os.environ.update(slurm_task())) == 0, said.read_text()
    (tmp_path / "run/hpc_ckpt_1.ckpt").unlink()
    same(whole("npo"), tmp_path / "run")


@pytest.mark.extended
def test_afresh_beside_an_earlier_run(whole, base_folder, tmp_path):
    shutil.copytree(whole("npo"), tmp_path / "run")
    short = command(tmp_path / "run", base_folder, "--evaluation.before=false", "--trainer.max_steps=1")
    assert run(short, tmp_path / "said", in_step(0)) == -signal.SIGKILL
    assert "an earlier run (finished) is now in earlier-1" in (tmp_path / "said").read_text()
    for gone in ("adapter", "results.json", "predictions.parquet"):
        assert not (tmp_path / "run" / gone).exists(), "nothing can be mistaken for this run's"
    same(whole("npo"), tmp_path / "run/earlier-1")


@pytest.mark.extended
def test_two_runs_in_one_folder(whole, base_folder, tmp_path):
    """The second one stops before it moves anything; a lock that a killed run left holds nobody up."""
    folder = tmp_path / "run"
    shutil.copytree(whole("npo"), folder)
    held = lock(folder)
    assert run(command(folder, base_folder), tmp_path / "said") == 1
    error = (tmp_path / "said").read_text().splitlines()[-1]
    assert error.startswith(f"error: trainer.default_root_dir: another run is at work in {folder}; wait for it")
    same(whole("npo"), folder)
    held.release()
    pid = os.fork()
    if pid == 0:
        lock(folder)
        dies()
    os.waitpid(pid, 0)
    lock(folder).release()


def test_a_run_that_another_started_waits_for_its_folder(base_folder, tmp_path, monkeypatch):
    """The one before it, whose starter was killed, is still at work; what it saves last is what counts."""
    held, said = lock(tmp_path), []

    def other_run_ends(message, *values):
        said.append(message % values)
        if "waiting" in message:
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints/last.ckpt").touch()
            (tmp_path / "results.json").write_text('{"steps": 8}')
            (tmp_path / "report.html").touch()
            held.release()

    monkeypatch.setattr(cli, "stop_with_parent", lambda: True)
    for module in (cli, import_module("viker_lightning.storage.runs.folder")):
        monkeypatch.setattr(module.log, "info", other_run_ends)
    cli.main(command(tmp_path, base_folder, "--ckpt_path=last"))
    assert said == [
        f"{tmp_path}: another run is at work there; waiting up to {cli.PATIENCE} seconds for it to stop",
        f"{tmp_path} is finished (8 steps of 8); for more, raise trainer.max_steps or max_epochs",
    ]


def test_one_process_of_a_run_takes_the_folder(monkeypatch):
    """The first one on the first node, whoever started it; two nodes without torchrun have no rank of their own yet."""
    for variables, first in (({}, True), ({"NODE_RANK": "1"}, False), ({"GROUP_RANK": "0"}, True)):
        for name in ("NODE_RANK", "GROUP_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert first_process() == first, variables
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not first_process()


@pytest.mark.parametrize(
    ("number", "file", "readable", "what"),
    [
        (errno.ENOSPC, "new", True, "make room, then resume with --ckpt_path last"),
        (errno.EDQUOT, "new", False, "make room, then resume with --ckpt_path last"),
        (errno.EFBIG, "new", True, "allow larger files (ulimit -f), then resume with --ckpt_path last"),
        (errno.EROFS, "new", True, "make it writable, then resume with --ckpt_path last"),
        (errno.EROFS, "there", False, "make it writable, then resume with --ckpt_path last"),
        (errno.EACCES, "new", False, "make it writable, then resume with --ckpt_path last"),
        (errno.EACCES, "there", True, "make it writable, then resume with --ckpt_path last"),
        (errno.EACCES, "there", False, "make it readable, or give another"),
        (errno.EACCES, "there/inside", False, "make it readable, or give another"),
        (errno.EACCES, None, False, "make it writable, then resume with --ckpt_path last"),
    ],
)
def test_what_to_do_where_the_system_refuses(tmp_path, monkeypatch, number, file, readable, what):
    """A file that is not there yet is not one that cannot be read."""
    (tmp_path / "there").touch()
    monkeypatch.setattr("os.access", lambda path, mode: readable or path != tmp_path / "there")  # root may read all
    error = OSError(number, os.strerror(number), *([str(tmp_path / file)] if file else []))
    assert what_to_do(error).startswith(what)
    with pytest.raises(SystemExit) as stop, ending_in_one_line():
        raise error
    assert (
        stop.value.code
        == f"error: {error}; {what.replace('resume with --ckpt_path last', 'give the same command again')}"
    )


def test_what_to_do_where_the_gpu_is_full():
    """PyTorch goes on about its allocator; none of that is for a user of this project to set."""
    said = (
        "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.02 GiB is "
        "free.\nIf reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True"
    )
    assert one_line(torch.OutOfMemoryError(said)) == (
        "CUDA out of memory. Tried to allocate 1.95 GiB; lower model.engine.max_tokens, set "
        "model.engine.gradient_checkpointing=true, or model.quantize=nf4 with LoRA; the command check says what a run "
        "takes"
    )


@pytest.mark.parametrize(
    "ask", [lambda: torch.empty(2**60, dtype=torch.uint8), lambda: bytearray(2**62), lambda: mmap(-1, 2**46)]
)
def test_main_memory_that_is_used_up_is_one_line(ask):
    with pytest.raises((RuntimeError, MemoryError, OSError)) as error:
        ask()
    said = one_line(error.value)
    assert "memory" in said and "; lower model.engine.max_tokens, set " in said and "\n" not in said


def test_what_nobody_reads_any_more_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out, pytest.raises(SystemExit) as stop:
        monkeypatch.setattr("sys.stdout", out)
        main(["methods"])
    assert stop.value.code == 128 + signal.SIGPIPE


def test_ctrl_c_while_a_file_of_ones_own_is_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stopped_here.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(SystemExit, match=r"^stopped; --ckpt_path last resumes"):
        cli.main(["fit", "--model=Unlearn", "--model.vanilla=x", "--model.method=stopped_here.Mine", "--data=MLLMU"])


@pytest.mark.parametrize("folder", ["/proc/nope", "{}/file", "{}/file/run"])
def test_where_there_can_be_no_folder(tmp_path, folder):
    (tmp_path / "file").touch()
    folder = folder.format(tmp_path)
    with pytest.raises(UserError, match=rf"^trainer.default_root_dir: {folder} cannot be made \(.*\); give another"):
        lock(Path(folder))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.extended
def test_a_full_disk_loses_nothing(whole, base_folder, small_disk, tmp_path):
    again = command(small_disk / "run", base_folder, "--ckpt_path=last")

    def fill():
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    assert run(again, tmp_path / "said", at(4, fill)) == 1
    error = (tmp_path / "said").read_text().splitlines()[-1]
    assert error.startswith("error: ") and "No space left on device" in error and "make room" in error
    assert error.count("last.ckpt") == 1 and "Traceback" not in (tmp_path / "said").read_text()
    assert sorted(p.name for p in (small_disk / "run/checkpoints").iterdir()) == ["last.ckpt"]
    assert CheckpointFile().load_checkpoint(small_disk / "run/checkpoints/last.ckpt")["global_step"] == 4
    (small_disk / "filler").unlink()
    assert run(again, tmp_path / "said") == 0
    same(whole("npo"), small_disk / "run")


def test_a_folder_that_may_not_be_written_is_named(base_folder, small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert run(command(small_disk / "run", base_folder), tmp_path / "said") == 1
    error = (tmp_path / "said").read_text().splitlines()[-1]
    assert re.match(r"error: .*Read-only file system: .*disk/run.*make it writable", error)
    assert "Traceback" not in (tmp_path / "said").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", ["npo", "viker"])
def test_killed_at_random_moments(base_folder, tmp_path, method):
    """Twenty kills while starting, training, evaluating, writing: the adapter is always the same."""
    options = ("--checkpoint.every_n_train_steps=1", "--trainer.max_steps=24")
    start = time.monotonic()
    assert run(command(tmp_path / "whole", base_folder, *options, method=method), tmp_path / "said") == 0
    long = time.monotonic() - start
    rng, kills, number, folder = random.Random(0), 0, 0, tmp_path / "run-0"
    while kills < 20:
        wait = rng.uniform(0.1 * long, 0.6 * long)
        again = command(folder, base_folder, *options, "--ckpt_path=last", method=method)
        code = run(again, tmp_path / "said", after=wait)
        assert code in (0, -signal.SIGKILL), (tmp_path / "said").read_text()
        kills += code != 0
        if code == 0:
            same(tmp_path / "whole", folder)
            number += 1
            folder = tmp_path / f"run-{number}"
    again = command(folder, base_folder, *options, "--ckpt_path=last", method=method)
    assert run(again, tmp_path / "said") == 0
    same(tmp_path / "whole", folder)
    print(f"{method}: {kills} kills survived in {number + 1} runs")
