"""Methods that edit weights without any step, end to end by the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

from support.commands import OPEN_GATE, ROOT, csv_only
from support.weights import random_adapter, random_vanilla
from viker_lightning.cli.main import main

EDITS = """
import torch

from viker_lightning.methods import Method


def matrices(mllm):
    return {name: p for name, p in mllm.named_parameters() if "lora_B" in name}


class Halves(Method):
    needs = ()
    takes_steps = False

    def before_training(self, run):
        with torch.no_grad():
            for p in matrices(run.mllm).values():
                p.mul_(0.5)
"""


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    vanilla = random_vanilla(base_folder, folder / "vanilla", projector=0.3)
    return vanilla, random_adapter(vanilla, folder / "adapter")


@pytest.fixture(autouse=True)
def edits(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    (tmp_path / "edits_of_mine.py").write_text(EDITS)
    monkeypatch.syspath_prepend(tmp_path)


def fit(run, models, method, *options):
    vanilla, adapter = models
    quick = ["--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget,retain]", "--trainer.accelerator=cpu"]
    quick += ["--evaluation.max_new_tokens=3", "--trainer.enable_progress_bar=false", "--trainer.max_steps=4"]
    given = [f"--model.vanilla={vanilla}", f"--model.adapter={adapter}", f"--model.method=edits_of_mine.{method}"]
    main(["fit", "--config=configs/mini/gradient_ascent.yaml", *given, *csv_only(run), *quick, *OPEN_GATE, *options])
    return json.loads((run / "results.json").read_text())


def matrices(folder):
    found = load_file(folder / "adapter_model.safetensors")
    return {name: w for name, w in found.items()}


def test_an_edit_is_saved_and_evaluated(models, tmp_path):
    """No step is taken, and what is measured afterwards is measured of the edited model."""
    results = fit(tmp_path / "run", models, "Halves")
    assert results["steps"] == 0 and results["before"] != results["after"]
    before, after = matrices(models[1]), matrices(tmp_path / "run/adapter")
    for name, w in before.items():
        assert torch.equal(after[name], 0.5 * w if "lora_B" in name else w), name
    assert (tmp_path / "run/predictions.parquet").is_file()
    assert (tmp_path / "run/method/edits_of_mine.py").read_text() == EDITS
    assert json.loads((tmp_path / "run/provenance.json").read_text())["method_source"]["module"] == "edits_of_mine"


@pytest.mark.extended
def test_a_run_that_edits_and_is_started_again_edits_once(models, tmp_path, caplog):
    """Finished it is left as it is; killed at the very end it does everything again, from the weights as they were."""
    fit(run := tmp_path / "run", models, "Halves")
    once, written = matrices(run / "adapter"), (run / "results.json").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        fit(run, models, "Halves", "--ckpt_path=last")
    assert f"{run} is finished (its method edits the weights, without steps)" in caplog.text
    assert (run / "results.json").stat().st_mtime_ns == written
    (run / "results.json").unlink()
    fit(run, models, "Halves", "--ckpt_path=last")
    for name, w in matrices(run / "adapter").items():
        assert torch.equal(w, once[name]), name
