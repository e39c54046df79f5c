"""Runs on several processes of this machine, over gloo, compared with runs on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from support import forked
from viker_lightning.cli.main import main

ROOT = Path(__file__).parents[2]

SMALL = ("--model.engine.max_sequence_tokens=140", "--model.engine.max_tokens=200")
"""Steps in many parts, of which processes have different numbers."""

FIT = ("fit", "--config=configs/mini/viker.yaml")

COMMON = (
    *("--data.root=mini/ci", "--data.max_people=3", "--data.splits=[forget,retain]", "--trainer.max_steps=2"),
    *("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--evaluation.max_new_tokens=5"),
    *("--model.optimizer=torch.optim.SGD", "--model.optimizer.momentum=0.9", "--model.lr=0.1"),
)
"""Untrained models would never stop talking; AdamW steps as far where a gradient is nothing but rounding."""

GATE = ("--gate.knowledge=0", "--gate.follows_image=0", "--gate.follows_text=1")


def on_two(name):
    """Options that put a run of the shipped config of a strategy on two processes without GPU."""
    here = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.precision=32-true")
    return (f"--config=configs/trainer/{name}.yaml", *here)


def arguments(run, *options, before=()):
    """The command line as a user types it."""
    return [sys.executable, *before, "-m", "viker_lightning", *options, f"--trainer.default_root_dir={run}"]


def threaded():
    """This environment, with one thread a process."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def launch(run, *options, before=(), environment=None, timeout=400, expect=0):
    """Runs the command line as a user does; a run that hangs fails."""
    command = arguments(run, *options, before=before)
    env = threaded() | (environment or {})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=timeout)
    assert done.returncode == expect, done.stderr[-3000:]
    return done


def here(run, *options):
    """Runs the command line in this process, from the repository's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        main([*options, f"--trainer.default_root_dir={run}"])


def on_ranks(run, *options):
    """Runs the command line in two processes as :func:`launch` does, without their start; what they say together.

    ``options`` must ask for two devices; Lightning takes the processes for torchrun's.
    """

    def fit():
        os.chdir(ROOT)
        main([*options, f"--trainer.default_root_dir={run}"])

    return forked.launch(fit, run.with_name(f"{run.name}-said"))


def weights(run):
    """What a run trained."""
    files = [*run.glob("adapter/*.safetensors")] or [*run.glob("model/*.safetensors")]
    return {name: w.float() for file in files for name, w in load_file(file).items()}


def results(run, name="results"):
    return json.loads((run / f"{name}.json").read_text())


def predictions(run, name="predictions"):
    """By moment and question, each of which there must be once."""
    rows = pq.read_table(run / f"{name}.parquet").to_pylist()
    found = {tuple(row[k] for k in ("when", "split", "modality", "person", "task", "number")): row for row in rows}
    assert len(found) == len(rows)
    return found


def difference(one, other):
    """Largest difference of two runs' weights, and largest relative one of a tensor."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    absolute = max((a[k] - b[k]).abs().max().item() for k in a)
    return absolute, max(((a[k] - b[k]).norm() / a[k].norm().clamp_min(1e-12)).item() for k in a)


def astray(one, other, start):
    """Distance of two models trained in full, as a share of how far the first has moved from where both began."""
    a, b, w = weights(one), weights(other), {k: v.float() for k, v in load_file(start / "model.safetensors").items()}
    far, moved = (sum((x[k] - y[k]).double().square().sum() for k in a) for x, y in ((b, a), (a, w)))
    return (far / moved).sqrt().item()


def gradient_difference(one, other):
    """Relative difference of the gradients of two runs' first steps (tests/support/matrix.py).

    Unlike weights after AdamW they show their scale.
    """
    a, b = (load_file(run / "gradient.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    far, size = (sum(g.double().square().sum() for g in found) for found in ([b[k] - a[k] for k in a], a.values()))
    return (far / size).sqrt().item()


def assert_same(one, other, numbers_within=1e-5):
    """The same adapter, the same numbers, the same answers."""
    absolute, relative = difference(one, other)
    print(f"{other.name}: adapter differs by at most {absolute:.1e}, a tensor by {relative:.1e} of its norm")
    assert relative <= 1e-3
    for when in ("before", "after"):
        for split, values in results(one)[when].items():
            assert results(other)[when][split] == pytest.approx(values, abs=numbers_within, rel=numbers_within)
    expected, found = predictions(one), predictions(other)
    assert expected.keys() == found.keys()
    assert all(row["answer"] == found[key]["answer"] for key, row in expected.items())
