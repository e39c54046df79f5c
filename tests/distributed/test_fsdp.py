"""Weights in parts on two processes: the run is that of one process."""

import json

import pytest

from support.distributed import (
    COMMON,
    FIT,
    GATE,
    SMALL,
    assert_same,
    here,
    on_ranks,
    on_two,
    results,
    weights,
)
from support.weights import random_vanilla
from viker_lightning.storage.runs import CheckpointFile


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla"), tied=False)


@pytest.fixture(scope="module")
def runs(vanilla, tmp_path_factory):
    """One process, and two with half the questions each, in parts of which they have different numbers."""
    folder = tmp_path_factory.mktemp("runs")
    options = (*FIT, *COMMON, *GATE, f"--model.vanilla={vanilla}")
    here(folder / "one", *options, "--data.batch_size=16")
    on_ranks(folder / "fsdp", *options, "--data.batch_size=8", *SMALL, *on_two("fsdp"))
    return folder


def test_two_processes_with_half_the_weights_train_as_one_does(runs):
    assert_same(runs / "one", runs / "fsdp")
    trained = weights(runs / "fsdp")
    assert all(w.abs().max() > 0 for name, w in trained.items() if "lora_B" in name)
    batch = json.loads((runs / "fsdp/provenance.json").read_text())["batch"]
    assert batch == {"per_process": 8, "accumulated": 1, "processes": 2, "effective": 16}


def test_the_adapter_of_a_sharded_run_loads_on_one_process(runs, vanilla):
    reload = ("validate", *FIT[1:], *COMMON, f"--model.vanilla={vanilla}", f"--model.adapter={runs / 'fsdp/adapter'}")
    here(runs / "reload", *reload)
    after = results(runs / "one")["after"]
    for split, values in results(runs / "reload", "results-validate")["validate"].items():
        assert values == pytest.approx(after[split], abs=1e-5, rel=1e-5)


def test_its_checkpoint_holds_what_is_trained_and_goes_on_anywhere(runs):
    one, two = (CheckpointFile().load_checkpoint(runs / name / "checkpoints/last.ckpt") for name in ("one", "fsdp"))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, two)]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 0
    pairs = [(w, two["state_dict"][name]) for name, w in one["state_dict"].items()]
    pairs += [(state["momentum_buffer"], states[1][number]["momentum_buffer"]) for number, state in states[0].items()]
    for expected, found in pairs:
        assert (found - expected).norm() <= 1e-3 * expected.norm()
