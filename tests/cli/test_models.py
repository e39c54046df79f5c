"""The command line with models and ways of training other than the shipped configs name."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

from viker_lightning.cli import main
from viker_lightning.models import folder_fingerprint

ROOT = Path(__file__).parents[2]
SHORT = [
    "--data.root=mini/ci",
    "--data.max_people=1",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--gate.knowledge=0",
    "--gate.follows_image=0",
    "--gate.follows_text=1",
]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("predict", "knowledge"):
        monkeypatch.setattr(import_module(f"viker_lightning.evaluation.{name}"), "MAX_NEW_TOKENS", 5)


def run(stage, config, folder, *options):
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": ""}}
    where = [f"--trainer.default_root_dir={folder}", f"--trainer.logger={json.dumps(logger)}"]
    main([stage, "--config", f"configs/mini/{config}.yaml", *where, *SHORT, *options])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_in_one_line(tmp_path):
    with pytest.raises(
        SystemExit, match=r"^error: trainer: No supported gpu backend found!; see configs/trainer"
    ) as stop:
        run("fit", "viker", tmp_path, "--config=configs/trainer/gpu.yaml")
    assert "\n" not in str(stop.value.code)


def test_a_wrong_strategy_is_said_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: trainer: .*invalid strategy name: `strategy='nonsense'`") as stop:
        run("fit", "viker", tmp_path, "--trainer.strategy=nonsense")
    assert "\n" not in str(stop.value.code)


def test_full_fine_tuning_writes_a_model_that_validates_alike(base_folder, tmp_path):
    folder = tmp_path / "full"
    run("fit", "npo", folder, f"--model.vanilla={base_folder}", "--model.lora=null", "--model.lr=1e-3")
    results = json.loads((folder / "results.json").read_text())
    assert results["before"] != results["after"]
    assert (folder / "model/model.safetensors").is_file() and not (folder / "adapter").exists()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["adapter"] is None and provenance["quantize"] is None
    assert provenance["base_fingerprint"] == folder_fingerprint(base_folder)
    assert provenance["base_commit"] is provenance["base_revision"] is None
    assert folder_fingerprint(folder / "model") != provenance["base_fingerprint"]
    run("validate", "npo", tmp_path / "again", f"--model.vanilla={folder}")
    again = json.loads((tmp_path / "again/results-validate.json").read_text())["validate"]
    for split in ("forget", "retain"):
        known = results["after"][split]
        shared = [name for name, value in known.items() if isinstance(value, float) and name in again[split]]
        assert "private_probability" in shared
        assert {n: again[split][n] for n in shared} == pytest.approx({n: known[n] for n in shared}, abs=1e-6)


def test_model_without_a_family_file_is_unlearned(tmp_path):
    from support.families import random_model

    random_model("gemma3").save(tmp_path / "gemma3")
    run("fit", "npo", tmp_path / "run", f"--model.vanilla={tmp_path / 'gemma3'}", "--trainer.max_steps=1")
    results = json.loads((tmp_path / "run/results.json").read_text())
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
        run("fit", "viker", tmp_path, f"--model.vanilla={base_folder}", *options)
    assert message in f"{stop.value.code}\n{capsys.readouterr().err}"
    assert "\n" not in str(stop.value.code)
