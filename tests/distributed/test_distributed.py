"""Two processes on one machine, over gloo: every sample once, and training moves every weight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from support import matrix
from support.commands import OPEN_GATE
from support.distributed import difference, gradient_difference, random_vanilla, threaded

ROOT = Path(__file__).parents[2]

SMALL = ("--model.engine.max_sequence_tokens=140", "--model.engine.max_tokens=200")


def fit(run, base, *options):
    command = [
        *(
            sys.executable,
            "-m",
            "viker_lightning",
            "fit",
            "--config=configs/mini/viker.yaml",
            f"--model.vanilla={base}",
        ),
        *("--data.root=mini/ci", "--data.max_people=2", "--data.splits=[forget,retain]", "--trainer.max_steps=2"),
        *OPEN_GATE,
        "--trainer.logger=false",
        *("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={run}", *options),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base_folder):
    folder = tmp_path_factory.mktemp("runs")
    two = ("--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=8")
    return {
        "one": (folder / "one", fit(folder / "one", base_folder, "--data.batch_size=16")),
        "two": (folder / "two", fit(folder / "two", base_folder, *two)),
        "parts": (folder / "parts", fit(folder / "parts", base_folder, *two, *SMALL)),
    }


def test_every_sample_is_counted_once(runs):
    """Before training both models are the same, so that all numbers must be."""
    one, *others = (results["before"] for _, results in runs.values())
    for split, values in one.items():
        for other in others:
            assert other[split] == pytest.approx(values, abs=1e-5)
    for folder, _ in runs.values():
        rows = pq.read_table(folder / "predictions.parquet").select(["when", "split", "person", "task", "number"])
        keys = [tuple(row.values()) for row in rows.to_pylist()]
        assert len(keys) == len(set(keys))


def test_two_processes_train(runs):
    folder, results = runs["two"]
    assert results["before"] != results["after"] and results["steps"] == 2
    assert json.loads((folder / "provenance.json").read_text())["world_size"] == 2
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    assert all(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("other", ["two", "parts"])
def test_two_processes_train_as_one_does(runs, other):
    """Two processes with half the questions each, in one part or in several, end with the adapter of one process."""
    one, two = (load_file(runs[name][0] / "adapter/adapter_model.safetensors") for name in ("one", other))
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= 1e-3 * weight.norm(), name


def test_a_process_without_images_leaves_the_projector_to_the_other(base_folder, tmp_path):
    random_vanilla(base_folder, tmp_path / "untied")
    matrix.run("few photos", tmp_path, tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["tests/support/matrix.py", str(tmp_path), str(tmp_path / "two"), "ddp", "few photos"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=threaded(), timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    absolute, relative = difference(tmp_path / "one/few photos", tmp_path / "two/few photos")
    assert absolute <= 1e-4 and relative <= 1e-3
    assert gradient_difference(tmp_path / "one/few photos", tmp_path / "two/few photos") < 1e-4
