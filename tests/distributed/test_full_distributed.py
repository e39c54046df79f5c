"""Training in full on two processes, whole or sharded: the run is that of one process."""

import pytest

from support.distributed import COMMON, GATE, assert_same, astray, here, on_ranks, on_two
from support.weights import random_vanilla


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", ["viker", "npo"])
def test_two_processes_unlearn_in_full_as_one_does(strategy, method, base_folder, tmp_path):
    vanilla = random_vanilla(base_folder, tmp_path / "vanilla", tied=False)
    options = ("fit", f"--config=configs/mini/{method}.yaml", *COMMON, *GATE, f"--model.vanilla={vanilla}")
    options += ("--model.lora=null",)
    here(tmp_path / "one", *options, "--data.batch_size=16")
    on_ranks(tmp_path / strategy, *options, "--data.batch_size=8", *on_two(strategy))
    assert_same(tmp_path / "one", tmp_path / strategy)
    assert astray(tmp_path / "one", tmp_path / strategy, vanilla) < 1e-3
