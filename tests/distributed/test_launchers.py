"""The processes of a run come from torchrun or from SLURM."""

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.distributed import (
    COMMON,
    FIT,
    GATE,
    ROOT,
    arguments,
    assert_same,
    launch,
    on_two,
    results,
    threaded,
)
from support.weights import random_vanilla

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def options(base_folder, tmp_path_factory):
    vanilla = random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla"), tied=False)
    return (*FIT, *COMMON, *GATE, f"--model.vanilla={vanilla}")


@pytest.fixture(scope="module")
def one(options, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "one"
    launch(run, *options, "--data.batch_size=16")
    return run


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_torchrun(options, one, strategy):
    run = one.parent / f"torchrun-{strategy}"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    launch(run, *options, "--data.batch_size=8", *on_two(strategy), before=torchrun)
    assert results(run)["world_size"] == 2
    assert_same(one, run)


def slurm_tasks():
    """What two tasks find in their environment, as srun starts them."""
    job = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "unlearn", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    return [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]


def on_slurm(run, *options):
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda task: launch(run, *options, environment=task), slurm_tasks()))
    assert all(isinstance(process, subprocess.CompletedProcess) for process in done)


def test_slurm(options, one):
    run = one.parent / "slurm"
    on_slurm(run, *options, "--data.batch_size=8", *on_two("fsdp"))
    assert_same(one, run)


@pytest.mark.parametrize("there", ["checkpoints/last.ckpt", "provenance.json"])
def test_slurm_tells_all_tasks_to_stop(options, one, there, tmp_path):
    """They requeue and stop at the same step, say so, and go on from there, even if told before the first."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\nkill -TERM $PPID\nsleep 2\n")  # the first task hears of it first
    (tmp_path / "scontrol").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = one.parent / f"stopped-{Path(there).stem}"
    given = (*options, "--data.batch_size=8", *on_two("ddp"), "--ckpt_path=last")
    command = arguments(run, *given, "--trainer.max_steps=200")
    how = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    tasks = [subprocess.Popen(command, env=threaded() | task | path, **how) for task in slurm_tasks()]
    while not (run / there).exists() and all(task.poll() is None for task in tasks):
        time.sleep(0.1)
    if there.endswith("ckpt"):
        tasks[1].send_signal(signal.SIGUSR1)
    else:
        for task in tasks:
            task.send_signal(signal.SIGTERM)
    said = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [128 + signal.SIGTERM] * 2, said
    steps = {re.search(r"stopped by SIGTERM after step (\d+); .*--ckpt_path last", text)[1] for text in said}
    assert len(steps) == 1 and (run / "hpc_ckpt_1.ckpt").exists() == there.endswith("ckpt")
    step = int(steps.pop()) + 1
    on_slurm(run, *given, f"--trainer.max_steps={step}")
    assert results(run)["steps"] == step
