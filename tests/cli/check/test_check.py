"""The command: what a run will take, all that is wrong with it, and no weights loaded on the way."""

import json
import re
import shutil

import pytest
from transformers import PreTrainedModel

from support.commands import csv_only, here  # noqa: F401 - `here` is used by every test of this file
from viker_lightning.cli.check import check, machine
from viker_lightning.cli.main import main
from viker_lightning.data.embedded.embedded_models import EMBEDDED_MODELS
from viker_lightning.data.embedded.wider import wider_model

LOAD = PreTrainedModel.__dict__["from_pretrained"]
SMALL = ["--data.root=mini/ci", "--trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """Whoever loads weights fails."""
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *given, **more: pytest.fail("weights are loaded"))
    monkeypatch.setattr("subprocess.run", lambda *given, **more: pytest.fail("something is trained"))


def look(config, folder, *options):
    """Runs the command; what it says is wrong, line by line."""
    try:
        main(["check", f"--config=configs/{config}.yaml", *csv_only(folder), *options])
    except SystemExit as stop:
        assert isinstance(stop.code, str), "a text ends a process with code 1"
        return stop.code.splitlines()
    return []


@pytest.mark.extended
@pytest.mark.parametrize("method", ["viker", "stranger", "idk", "altpo", "rmu", "held", "manu", "vanilla", "gold"])
def test_shipped_configs(method, tmp_path, capsys):
    assert look(f"mini/{method}", tmp_path / "run", *SMALL) == []
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "ready" and not (tmp_path / "run").exists(), "nothing is written for a run"
    assert "\nmodel: LlavaForConditionalGeneration (family Llava)" in out
    for split in ("forget", "test", "retain", "real", "general"):
        assert re.search(rf"^  evaluated: {split}: \d+ people, \d+ photos, \d+ questions$", out, re.M)
    stages = {"vanilla": "450 steps", "gold": "450 steps", "manu": "none, MANU edits the weights once"}
    assert f"\ntraining: {stages.get(method, '')}" in out
    assert re.search(r"^ +\d+\.\d\d  peak; available on cpu: \d+\.\d\d$", out, re.M)


@pytest.mark.extended
def test_a_base_that_is_built_on_first_use(tmp_path, monkeypatch, capsys):
    """Its sizes are known once it is there."""
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path / "cache"))
    lines = look("wider/vanilla", tmp_path / "run", *SMALL)
    assert len(lines) == 1 and "model.base: wider is not built yet" in lines[0]
    with monkeypatch.context() as built:
        built.setattr(PreTrainedModel, "from_pretrained", LOAD)
        wider_model()
    capsys.readouterr()
    assert look("wider/vanilla", tmp_path / "run", *SMALL) == []
    assert f"\nmodel: LlavaForConditionalGeneration (family Llava), {wider_model()}\n" in capsys.readouterr().out


def test_numbers_of_people(data, tmp_path, capsys):
    assert look("mini/viker", tmp_path, *SMALL) == []
    streams, out = data.streams, capsys.readouterr().out
    for name, people in streams.items():
        photos, questions = sum(len(p.images) for p in people), sum(len(p.vqa) for p in people)
        assert f"trained on: {name}: {len(people)} people, {photos} photos, {questions} questions\n" in out


def test_everything_that_is_wrong_is_said(tmp_path, monkeypatch, capsys):
    """Data, adapter and machine at once."""
    (tmp_path / "people.csv").write_text("person,question\nAda,Where?\n")
    lines = look(
        "data/jsonl",
        tmp_path / "run",
        f"--data.root={tmp_path}/people.csv",
        "--model.lora.targets=[q_proj,nothing]",
        "--trainer.accelerator=gpu",
        "--trainer.devices=64",
    )
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert lines[0].startswith("error: trainer: ")
    assert "people.csv" in lines[1]
    assert "model.lora.targets: no layer of the language model is called nothing" in lines[2]
    assert "ready" not in capsys.readouterr().out


def test_a_folder_that_is_no_benchmark(tmp_path):
    (tmp_path / "data").mkdir()
    lines = look("mini/viker", tmp_path / "run", f"--data.root={tmp_path}/data", "--trainer.accelerator=cpu")
    assert len(lines) == 1 and f"{tmp_path}/data" in lines[0]


def test_too_little_memory_and_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "device_memory", lambda device: 2**20)
    monkeypatch.setattr(check, "free_disk", lambda folder: 2**10)
    lines = look("mini/viker", tmp_path / "run", *SMALL, "--model.method.k=4")
    assert re.match(
        r"error: memory: about 0\.\d\d GiB are needed, 0\.00 GiB are there on cpu; try --model\.quantize nf4 ", lines[0]
    )
    assert "--model.engine.max_tokens" in lines[0] and "gradient_checkpointing true (about 0." in lines[0]
    assert len(lines) == 3 and all(line.startswith("error: disk: about 0.") for line in lines[1:])
    assert str(tmp_path / "run") in lines[1]


def test_what_would_take_less_takes_as_much_as_is_said(tmp_path, monkeypatch, capsys):
    """Most of what is read behind many images are the images themselves, whatever the budget."""
    monkeypatch.setattr(check, "device_memory", lambda device: 2**20)
    monkeypatch.setattr(check, "GIB", 1)
    many = [*SMALL, "--model.method.k=12"]
    (line,) = look("mini/viker", tmp_path / "run", *many)
    budget, less = re.search(r"--model.engine.max_tokens (\d+) .*? \(about (\d+).00 GiB\)", line).groups()
    capsys.readouterr()
    within = [f"--model.engine.max_tokens={budget}", f"--model.engine.max_sequence_tokens={min(int(budget), 4096)}"]
    look("mini/viker", tmp_path / "run", *many, *within)
    assert re.search(r"(\d+)\.00  peak; ", capsys.readouterr().out)[1] == less


def test_a_rate_too_small_to_move_anything(tmp_path, capsys):
    for rate, moves in (("0.001", True), ("1e-5", False)):
        look("mini/viker", tmp_path / "run", *SMALL, f"--model.lr={rate}")
        assert ("may change little" in capsys.readouterr().out) is not moves


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "writable", lambda folder: folder != tmp_path / "run")
    assert look("mini/viker", tmp_path / "run", *SMALL) == [
        f"error: disk: {tmp_path} cannot be written to; give another folder for {tmp_path / 'run'}"
    ]


def test_a_model_that_is_not_one(tmp_path):
    (tmp_path / "model").mkdir()
    lines = look("mini/viker", tmp_path / "run", *SMALL, f"--model.vanilla={tmp_path}/model")
    assert lines == [
        f"error: {tmp_path}/model: found no weights (*.safetensors), expected a model folder; give another"
    ]


def test_sizes_are_known_before_the_weights_are_there(tmp_path, capsys):
    source, folder = EMBEDDED_MODELS["mini"].sizes(), tmp_path / "model"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    assert look("mini/viker", tmp_path / "run", *SMALL, f"--model.vanilla={source}") == []
    whole = capsys.readouterr().out
    assert look("mini/viker", tmp_path / "run", *SMALL, f"--model.vanilla={folder}") == []
    lines = capsys.readouterr().out.replace(str(folder), str(source)).splitlines(keepends=True)
    assert "".join(line for line in lines if "no weights (*.safetensors) are there" not in line) == whole
    assert len(lines) == len(whole.splitlines()) + 1


def test_a_model_that_is_asked_and_not_there(tmp_path):
    (tmp_path / "none").mkdir()
    asked = [f"--evaluation.{name}={tmp_path}/none" for name in ("gold", "judge", "gibberish")]
    lines = look("mini/viker", tmp_path / "run", *SMALL, *asked)
    assert len(lines) == 2, "gold and the judge are the same folder"
    assert (
        lines[0] == f"error: {tmp_path}/none: found no weights (*.safetensors), expected a model folder; give another"
    )
    assert lines[1].startswith(f"error: gibberish classifier {tmp_path}/none: cannot be loaded (")


def test_a_layer_that_is_not_there_and_another_stage(tmp_path):
    lines = look("mini/rmu", tmp_path / "run", *SMALL, "--model.method.layer=9", "--data.stage=gold")
    assert len(lines) == 2
    assert "data.stage: found 'gold', but Unlearn needs unlearn; set it" in lines[0] and "layer 9" in lines[1]


def test_no_end(tmp_path, capsys):
    endless = *SMALL, "--trainer.max_steps=-1", "--trainer.max_epochs=-1"
    lines = look("mini/viker", tmp_path / "run", *endless)
    assert lines == ["error: trainer.max_steps: found no limit, nor max_epochs; set one of them, or max_time"]
    capsys.readouterr()
    assert look("mini/viker", tmp_path / "run", *endless, "--trainer.max_time=00:01:00:00") == []
    assert "training: until trainer.max_time is over, " in capsys.readouterr().out


def test_a_machine(tmp_path, monkeypatch):
    import torch

    cpu = torch.device("cpu")
    whole = machine.device_memory(cpu)
    assert whole and machine.supports(cpu, "bf16-true")
    (tmp_path / "limit").write_text("4096\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "limit")
    assert machine.device_memory(cpu) == 4096
    (tmp_path / "limit").write_text("max\n")
    assert machine.device_memory(cpu) >= whole
    assert machine.free_disk(tmp_path / "a/b") > 0 and machine.existing(tmp_path / "a/b") == tmp_path
    assert machine.writable(tmp_path / "a/b") and not machine.writable(tmp_path / "limit/below")
    assert machine.same_disk(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("strategy", ["ddp", '{"class_path": "viker_lightning.training.FSDP2"}'])
def test_several_processes(strategy, tmp_path, monkeypatch, capsys):
    """No process is started; steps are shared out. More than there are cores would wait for one another."""
    monkeypatch.setattr("viker_lightning.cli.check.check.cores", lambda: 1)
    assert look("mini/viker", tmp_path, *SMALL, "--data.batch_size=2", "--data.questions_per_image=2") == []
    alone = capsys.readouterr().out
    several = ["--trainer.devices=2", f"--trainer.strategy={strategy}", "--trainer.inference_mode=false"]
    lines = look("mini/viker", tmp_path, *SMALL, "--data.batch_size=2", "--data.questions_per_image=2", *several)
    assert lines == [
        "error: trainer.devices: found 2 processes, expected at most 1, as many as there are cores; lower it"
    ]
    epochs = [int(re.search(r"epochs of (\d+)\)", out)[1]) for out in (alone, capsys.readouterr().out)]
    assert epochs[1] == (epochs[0] + 1) // 2 > 1


def test_a_run_that_goes_on_from_an_adapter(finished, tmp_path, capsys):
    """What it was made on is looked at; nothing is merged."""
    assert look("mini/viker", tmp_path / "run", *SMALL, f"--model.vanilla={finished}") == []
    base = json.loads((finished / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert f"(family Llava), {base}\n" in capsys.readouterr().out
    lines = look("mini/viker", tmp_path / "run", *SMALL, f"--model.adapter={finished}/adapter", "--model.lora.r=4")
    assert len(lines) == 1 and "the adapter was made with r=8, but this run has 4" in lines[0]
    adapter = shutil.copytree(finished / "adapter", tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa"}))
    lines = look("mini/viker", tmp_path / "run", *SMALL, f"--model.adapter={adapter}")
    assert len(lines) == 1 and "the adapter has init_lora_weights=pissa, but this run trains" in lines[0]
