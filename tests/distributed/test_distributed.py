"""Two processes on one machine, over gloo: every sample once, and training moves every weight."""

import json

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from support.distributed import (
    COMMON,
    FIT,
    GATE,
    SMALL,
    here,
    launch,
    on_ranks,
    results,
)

FEW = (*FIT, *COMMON, "--data.max_people=2", *GATE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base_folder):
    """On one process; on two that Lightning starts; on two, in parts."""
    folder = tmp_path_factory.mktemp("runs")
    options = (*FEW, f"--model.vanilla={base_folder}")
    two = ("--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=8")
    here(folder / "one", *options, "--data.batch_size=16")
    launch(folder / "two", *options, *two)
    on_ranks(folder / "parts", *options, *two, *SMALL)
    return {name: (folder / name, results(folder / name)) for name in ("one", "two", "parts")}


def test_every_sample_is_counted_once(runs):
    """Before training both models are the same, so that all numbers must be."""
    one, *others = (found["before"] for _, found in runs.values())
    for split, values in one.items():
        for other in others:
            assert other[split] == pytest.approx(values, abs=1e-5)
    for folder, _ in runs.values():
        rows = pq.read_table(folder / "predictions.parquet").select(["when", "split", "person", "task", "number"])
        keys = [tuple(row.values()) for row in rows.to_pylist()]
        assert len(keys) == len(set(keys))


def test_two_processes_train(runs):
    folder, found = runs["two"]
    assert found["before"] != found["after"] and found["steps"] == 2
    assert json.loads((folder / "provenance.json").read_text())["world_size"] == 2
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    assert all(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("other", ["two", "parts"])
def test_two_processes_train_as_one_does(runs, other):
    """Two processes with half the questions each, in one part or in several, end with the adapter of one process."""
    one, two = (load_file(runs[name][0] / "adapter/adapter_model.safetensors") for name in ("one", other))
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= 1e-3 * weight.norm(), name
