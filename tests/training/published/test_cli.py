"""The shipped published configs through the command line, with a tiny model and the embedded benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from support.commands import OPEN_GATE, print_config
from viker_lightning.cli.main import main
from viker_lightning.storage.runs.write import gold_answers, read_predictions

ROOT = Path(__file__).parents[3]
QUICK = ["--data.root=mini/ci", "--data.forget=10", "--data.max_people=1", "--data.splits=[forget]"]
QUICK += ["--model.dtype=float32", *OPEN_GATE, "--evaluation.coherence=false"]
QUICK += ["--evaluation.max_new_tokens=3"]
QUICK += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
WHOLE_PEOPLE = ["--data.batch_size=72", "--data.questions_per_image=36", "--trainer.max_epochs=1"]
"""Two people a step: an epoch is one forget step and five retain steps."""


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def fit(config, run, *options):
    main(["fit", f"--config=configs/mllmu/{config}.yaml", f"--trainer.default_root_dir={run}", *QUICK, *options])
    return json.loads((run / "results.json").read_text()), json.loads((run / "provenance.json").read_text())


@pytest.fixture(scope="module")
def gold(base_folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "gold"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        options = [f"--model.base={base_folder}", "--data.stage=gold", "--trainer.max_steps=2"]
        results, provenance = fit("published_vanilla", run, *options)
    assert results["protocol"] == provenance["protocol"] == "published" and provenance["labels"] == "text"
    assert (run / "model/model.safetensors").is_file()
    return run


def weights(run):
    return load_file(run / "adapter/adapter_model.safetensors")


def test_one_switch(gold, base_folder, tmp_path):
    """Objective, schedule, labels and questions follow data.protocol, and every file of the run says which it was."""
    results, provenance = fit("published", tmp_path, f"--model.vanilla={base_folder}", *WHOLE_PEOPLE)
    assert results["steps"] == 6 and results["protocol"] == "published"
    assert (provenance["protocol"], provenance["labels"]) == ("published", "text")
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert rows and {row["protocol"] for row in rows} == {"published"}
    assert "option_probability" not in results["after"]["forget"]
    corrected = tmp_path / "corrected"
    options = [f"--model.vanilla={base_folder}", *WHOLE_PEOPLE, "--data.protocol=corrected"]
    results, provenance = fit("published", corrected, *options)
    assert results["steps"] == 1 and results["protocol"] == "corrected" and provenance["labels"] == "answer"
    assert {p.protocol for _, p in read_predictions(corrected / "predictions.parquet")} == {"corrected"}
    assert gold_answers(str(gold), None)[0].protocol == "published"


@pytest.mark.parametrize("config", ["published", "published_ga", "published_npo", "published_vanilla"])
def test_settings_are_those_of_the_scripts(config):
    """baselines/*.py, finetune.py: gaussian LoRA, transformers' AdamW, fp32; a rate that falls every batch,
    but where the scheduler is stepped once an epoch."""
    model = print_config(["fit", f"--config=configs/mllmu/{config}.yaml"])["model"]["init_args"]
    assert model["lora"]["init"] == "gaussian" and model["dtype"] == "float32" and model["weight_decay"] == 0
    assert model["optimizer"]["class_path"] == "viker_lightning.training.TransformersAdamW"
    assert model["optimizer"]["init_args"]["eps"] == 1e-6
    assert model["schedule"] == ("constant" if config == "published" else "linear")


def test_the_optimizer_is_said(base_folder, tmp_path):
    _, provenance = fit("published_ga", tmp_path, f"--model.vanilla={base_folder}", "--trainer.max_steps=1")
    assert provenance["training"]["name"] == "TransformersAdamW" and provenance["adapter"]["init"] == "gaussian"


def test_npo_and_its_gold_model(gold, base_folder, tmp_path):
    options = [f"--model.vanilla={base_folder}", "--trainer.max_steps=2"]
    results, provenance = fit("published_npo", tmp_path, *options, f"--model.method.gold={gold}")
    assert results["steps"] == 2 and provenance["method"]["name"] == "PublishedNPO"
    assert any(w.abs().max() > 0 for name, w in weights(tmp_path).items() if "lora_B" in name)
    with pytest.raises(SystemExit) as stop:
        fit("published", tmp_path / "without", *options, "--model.method=NPO")
    assert stop.value.code == (
        "error: NPO: data.protocol=published needs a reference trained on the retain set; set gold to it"
    )


def test_gold_answers_of_another_protocol_are_refused(gold, base_folder, tmp_path):
    options = [f"--model.vanilla={base_folder}", f"--evaluation.gold={gold}", "--trainer.max_steps=1"]
    assert "kl_gold" in fit("published", tmp_path / "same", *options)[0]["after"]["forget"]
    with pytest.raises(SystemExit) as stop:
        fit("published", tmp_path / "other", *options, "--data.protocol=corrected")
    assert "made with data.protocol=published, but this run has corrected" in stop.value.code


@pytest.mark.extended
def test_resume_in_the_middle_of_a_pass_changes_nothing(base_folder, tmp_path):
    """Once where the forget pass ends, once in the middle of the retain pass."""
    keep = [f"--model.vanilla={base_folder}", *WHOLE_PEOPLE, "--checkpoint.every_n_train_steps=1"]
    keep += ["--model.lora.dropout=0", "--checkpoint.save_top_k=-1", "--evaluation.before=false"]
    keep += ["--trainer.max_steps=3"]
    fit("published", tmp_path / "whole", *keep)
    for step in (1, 2):
        checkpoint = tmp_path / f"whole/checkpoints/epoch=0-step={step}.ckpt"
        fit("published", tmp_path / f"from {step}", *keep, f"--ckpt_path={checkpoint}")
        for name, weight in weights(tmp_path / "whole").items():
            torch.testing.assert_close(weights(tmp_path / f"from {step}")[name], weight, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_two_processes_take_turns_as_one_does(base_folder, tmp_path):
    def train(run, *options):
        command = [sys.executable, "-m", "viker_lightning", "fit", "--config=configs/mllmu/published.yaml", *QUICK]
        command += [f"--trainer.default_root_dir={run}", f"--model.vanilla={base_folder}", "--model.lora.dropout=0"]
        command += ["--data.questions_per_image=36", "--trainer.max_epochs=1", "--evaluation.before=false", *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads((run / "results.json").read_text())["steps"] == 6
        return weights(run)

    one = train(tmp_path / "one", "--data.batch_size=72", "--trainer.devices=1")
    two = train(tmp_path / "two", "--data.batch_size=36", "--trainer.devices=2", "--trainer.strategy=ddp")
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= 1e-3 * weight.norm(), name
