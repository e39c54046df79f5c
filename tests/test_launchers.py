"""The processes of a run come from torchrun or from SLURM."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from distributed import COMMON, FIT, GATE, assert_same, launch, on_two, random_vanilla, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def options(base_folder, tmp_path_factory):
    vanilla = random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla"))
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


def test_slurm(options, one):
    """Two tasks as srun starts them: each finds its place in its environment."""
    run = one.parent / "slurm"
    job = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "unlearn", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    tasks = [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    given = (*options, "--data.batch_size=8", *on_two("fsdp"))
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda task: launch(run, *given, environment=task), tasks))
    assert all(isinstance(process, subprocess.CompletedProcess) for process in done)
    assert_same(one, run)
