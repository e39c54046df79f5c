"""The command line with models and ways of training other than the shipped configs name."""

import json
from importlib import import_module

import pytest
import torch

from support.commands import ROOT, SHORT, run
from viker_lightning.models import folder_fingerprint


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("predict", "knowledge"):
        monkeypatch.setattr(import_module(f"viker_lightning.evaluation.{name}"), "MAX_NEW_TOKENS", 5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_in_one_line(tmp_path):
    with pytest.raises(
        SystemExit, match=r"^error: trainer: No supported gpu backend found!; see configs/trainer"
    ) as stop:
        run("fit", "mini/viker", tmp_path, None, *SHORT, "--config=configs/trainer/gpu.yaml")
    assert "\n" not in str(stop.value.code)


def test_a_wrong_strategy_is_said_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: trainer: .*invalid strategy name: `strategy='nonsense'`") as stop:
        run("fit", "mini/viker", tmp_path, None, *SHORT, "--trainer.strategy=nonsense")
    assert "\n" not in str(stop.value.code)


def test_full_fine_tuning_writes_a_model_that_validates_alike(base_folder, tmp_path):
    folder = tmp_path / "full"
    options = (*SHORT, "--data.splits=[forget,retain]")
    full = ("--model.lora=null", "--model.lr=1e-3")
    results = run("fit", "mini/gradient_ascent", folder, base_folder, *options, *full)
    assert results["before"] != results["after"]
    assert (folder / "model/model.safetensors").is_file() and not (folder / "adapter").exists()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["adapter"] is None and provenance["quantize"] is None
    assert provenance["base_fingerprint"] == folder_fingerprint(base_folder)
    assert provenance["base_commit"] is provenance["base_revision"] is None
    assert folder_fingerprint(folder / "model") != provenance["base_fingerprint"]
    again = run("validate", "mini/gradient_ascent", tmp_path / "again", folder, *options)["validate"]
    for split in ("forget", "retain"):
        known = results["after"][split]
        shared = [name for name, value in known.items() if isinstance(value, float) and name in again[split]]
        assert "private_probability" in shared
        assert {n: again[split][n] for n in shared} == pytest.approx({n: known[n] for n in shared}, abs=1e-6)


def test_model_without_a_family_file_is_unlearned(tmp_path):
    from support.families import random_model

    random_model("gemma3").save(tmp_path / "gemma3")
    few = (*SHORT, "--trainer.max_steps=1", "--data.splits=[forget]", "--evaluation.coherence=false")
    results = run("fit", "mini/npo", tmp_path / "run", tmp_path / "gemma3", *few)
    assert results["before"]["forget"] != results["after"]["forget"]
    assert (tmp_path / "run/adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.revision=v1"], "revision=v1: only a hub id has revisions"),
        (["--model.lora=null", "--model.adapter=x"], "adapter=x goes with LoRA, but lora is null"),
        (["--model.lora=null", "--model.method.direction=reverse"], "the original model is asked in every step"),
    ],
)
def test_options_that_do_not_go_together(options, message, base_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run("fit", "mini/viker", tmp_path, base_folder, *SHORT, *options)
    assert message in f"{stop.value.code}\n{capsys.readouterr().err}"
    assert "\n" not in str(stop.value.code)
