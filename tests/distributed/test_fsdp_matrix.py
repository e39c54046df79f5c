"""Whatever a run trains, and however: one process, two with DDP and two with shards end with the same weights."""

import subprocess
import sys

import pytest

from support.distributed import ROOT, difference, gradient_difference, weights
from support.families import random_model
from support.matrix import CASES, run
from support.weights import random_vanilla

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STRATEGIES = ("ddp", "fsdp")


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    random_vanilla(base_folder, folder / "untied", tied=False)
    random_vanilla(base_folder, folder / "tied")
    for name in ("windowed", "qwen2_5_vl"):
        random_model(name).save(folder / name)
    return folder


def on_two(models, out, strategy, *options):
    """Started as torchrun starts it; a run that hangs fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["tests/support/matrix.py", str(models), str(out), strategy, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def out(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    for case in CASES:
        run(case, models, folder / "one")
    for strategy in STRATEGIES:
        on_two(models, folder / strategy, strategy)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(out, case, strategy):
    absolute, relative = difference(out / "one" / case, out / strategy / case)
    print(f"{case}, {strategy}: weights differ by at most {absolute:.1e}, a tensor by {relative:.1e} of its norm")
    most = (1e-3, 2e-3) if case == "bf16" else (1e-4, 1e-3)  # AdamW blows up rounding of gradients next to nothing
    assert absolute <= most[0] and relative <= most[1]
    assert gradient_difference(out / "one" / case, out / strategy / case) < (2e-2 if case == "bf16" else 1e-4)


def test_a_projector_is_trained_and_kept_beside_the_adapter(out):
    for strategy in ("one", *STRATEGIES):
        assert sum("multi_modal_projector" in name for name in weights(out / strategy / "finetune projector")) == 4


@pytest.mark.parametrize("saved", ["one", "ddp", "fsdp"])
@pytest.mark.parametrize("case", ["viker", "full", "finetune projector"])
def test_a_checkpoint_goes_on_anywhere(out, models, case, saved):
    """Two steps somewhere, two more elsewhere: the weights of four steps on one process."""
    run(case, models, out / "four", steps=4)
    checkpoint = str(out / saved / case / "last.ckpt")
    run(case, models, out / f"{saved}-one", resume=checkpoint, steps=4)
    on_two(models, out / f"{saved}-fsdp", "fsdp", case, "--steps", "4", "--resume", checkpoint)
    for where in ("one", "fsdp"):
        absolute, relative = difference(out / "four" / case, out / f"{saved}-{where}" / case)
        print(f"{case}, {saved} to {where}: at most {absolute:.1e}, a tensor by {relative:.1e} of its norm")
        assert absolute <= 1e-4 and relative <= 1e-3
