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


TWO = ("--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=8")


@pytest.fixture(scope="module")
def one(tmp_path_factory, base_folder):
    folder = tmp_path_factory.mktemp("runs") / "one"
    here(folder, *FEW, f"--model.vanilla={base_folder}", "--data.batch_size=16")
    return folder


@pytest.fixture(scope="module")
def parts(one, base_folder):
    """On two processes, in parts."""
    on_ranks(one.parent / "parts", *FEW, f"--model.vanilla={base_folder}", *TWO, *SMALL)
    return one.parent / "parts"


def check_same(one, two):
    """Two processes with half the questions each end with the adapter of one process."""
    one, two = (load_file(run / "adapter/adapter_model.safetensors") for run in (one, two))
    assert all(w.abs().max() > 0 for name, w in two.items() if "lora_B" in name)
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= 1e-3 * weight.norm(), name


def test_every_sample_is_counted_once(one, parts):
    """Before training both models are the same, so that all numbers must be."""
    for split, values in results(one)["before"].items():
        assert results(parts)["before"][split] == pytest.approx(values, abs=1e-5)
    for folder in (one, parts):
        rows = pq.read_table(folder / "predictions.parquet").select(["when", "split", "person", "task", "number"])
        keys = [tuple(row.values()) for row in rows.to_pylist()]
        assert len(keys) == len(set(keys))


def test_two_processes_train_as_one_does(one, parts):
    check_same(one, parts)
    found = results(parts)
    assert found["before"] != found["after"] and found["steps"] == 2
    assert json.loads((parts / "provenance.json").read_text())["world_size"] == 2


@pytest.mark.extended
def test_lightning_starts_the_other_process(one, base_folder):
    launch(one.parent / "two", *FEW, f"--model.vanilla={base_folder}", *TWO)
    check_same(one, one.parent / "two")
