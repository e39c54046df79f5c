"""Half the weights on each of two processes: what stops a run, and what asks its model, is as on one process."""

import json
import re
import signal
import subprocess
import time

import pytest

from support.distributed import (
    FIT,
    GATE,
    ROOT,
    arguments,
    difference,
    here,
    launch,
    on_two,
    predictions,
    results,
    threaded,
    weights,
)
from support.weights import random_adapter, random_vanilla
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.storage.runs import CheckpointFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FEW = ("--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget,retain]", "--evaluation.coherence=false")
FEW += ("--trainer.logger=false", "--trainer.enable_progress_bar=false")
SHORT_ANSWERS = "--evaluation.max_new_tokens=5"
"""Untrained models would never stop talking."""
TWO = ("--data.batch_size=12", *on_two("fsdp"))
ASCENT = (
    "fit",
    "--config=configs/mini/gradient_ascent.yaml",
    *FEW,
    SHORT_ANSWERS,
    *GATE,
    "--model.lr=5e-4",
    "--guard.every_n_steps=2",
)


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    """A vanilla model and an adapter that changes what it says."""
    folder = tmp_path_factory.mktemp("models")
    random_vanilla(base_folder, folder / "vanilla", tied=False)
    random_adapter(folder / "vanilla", folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def guarded(models, tmp_path_factory):
    """A run that the guard stops, on one process: its folder and its options."""
    folder = tmp_path_factory.mktemp("guarded")
    options = (*ASCENT, f"--model.vanilla={models / 'vanilla'}")
    with pytest.raises(SystemExit) as stop:
        here(folder / "bound", *options, "--trainer.max_steps=1", "--guard.max_retain_loss=0.01")
    before = re.search(r"retain loss is ([\d.]+)", str(stop.value.code))
    options += (f"--guard.max_retain_loss={float(before[1]) + 0.1}",)
    here(folder / "one", *options, "--trainer.max_steps=30")
    stopped = results(folder / "one")["stopped"]
    assert 0 < stopped["good_step"] == stopped["step"] - 2 < 28
    return folder, options


def same_stop(one, other):
    """Stopped at the same step by the same number, with the same adapter."""
    wanted, found = results(one)["stopped"], results(other)["stopped"]
    assert {k: found[k] for k in ("step", "good_step")} == {k: wanted[k] for k in ("step", "good_step")}
    numbers = [float(re.search(r"retain loss is ([\d.]+)", stopped["why"])[1]) for stopped in (wanted, found)]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-3)
    assert difference(one, other)[0] <= 1e-4


def test_the_guard_stops_it(guarded):
    folder, options = guarded
    launch(folder / "two", *options, "--trainer.max_steps=30", *TWO)
    same_stop(folder / "one", folder / "two")


def test_a_resumed_run_falls_back_to_what_was_good_before(guarded):
    """The last good adapter is one step older than the checkpoint the run goes on from."""
    folder, options = guarded
    last = results(folder / "one")["stopped"]["step"] - 1
    launch(folder / "resumed", *options, f"--trainer.max_steps={last}", *TWO)
    saved = CheckpointFile().load_checkpoint(folder / "resumed/checkpoints/last.ckpt")
    guard = next(state for name, state in saved["callbacks"].items() if name.startswith("CollapseGuard"))
    assert saved["global_step"] == last and guard["step"] == last - 1 and guard["weights"]
    launch(folder / "resumed", *options, "--trainer.max_steps=30", "--ckpt_path=last", *TWO)
    same_stop(folder / "one", folder / "resumed")


@pytest.mark.parametrize("method", ["npo", "kl_minimization"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_sigterm_stops_all_processes_and_nothing_is_lost(models, tmp_path, method, strategy):
    """What the frozen model said is asked again by a run that goes on; the adapter is the one it would have had."""
    fit = ("fit", f"--config=configs/mini/{method}.yaml", *FEW, *GATE, f"--model.vanilla={models / 'vanilla'}")
    fit += (SHORT_ANSWERS, "--trainer.max_steps=8", "--data.batch_size=12", "--evaluation.before=false")
    fit += on_two(strategy)
    launch(tmp_path / "whole", *fit)
    again = arguments(tmp_path / "run", *fit, "--ckpt_path=last")
    process = subprocess.Popen(again, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=threaded())
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    end = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)  # until the last process with this pipe is gone
    assert process.returncode == 128 + signal.SIGTERM, said[-3000:]
    step = int(re.search(r"stopped by SIGTERM after step (\d+); .*--ckpt_path last", said)[1])
    assert 0 < step < 8 and CheckpointFile().load_checkpoint(checkpoint)["global_step"] == step
    assert "Traceback" not in said
    launch(tmp_path / "run", *fit, "--ckpt_path=last")
    assert results(tmp_path / "run")["steps"] == 8
    absolute, relative = difference(tmp_path / "whole", tmp_path / "run")
    print(f"{method}, {strategy}, stopped after step {step}: at most {absolute:.1e}, a tensor by {relative:.1e}")
    assert absolute <= 1e-5 and relative <= 1e-4
    assert any(w.abs().max() > 0 for name, w in weights(tmp_path / "run").items() if "lora_B" in name)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_what_asks_the_model(models, tmp_path, command):
    options = (command, *FIT[1:], *FEW, SHORT_ANSWERS, f"--model.vanilla={models / 'vanilla'}")
    options += (f"--model.adapter={models / 'adapter'}", "--evaluation.coherence=true")
    here(tmp_path / "one", *options)
    done = launch(tmp_path / "two", *options, *on_two("fsdp"))
    assert done.stdout.count("What the model knows") == (command == "validate")
    one, two = (results(tmp_path / name, f"results-{command}") for name in ("one", "two"))
    assert one["world_size"] == 1 and two["world_size"] == 2 and one[command].keys() == two[command].keys()
    for split, values in one[command].items():
        assert two[command][split] == pytest.approx(values, rel=1e-4, abs=1e-5), split
    expected, found = (predictions(tmp_path / name, f"predictions-{command}") for name in ("one", "two"))
    assert expected.keys() == found.keys()
    assert all(row["answer"] == found[key]["answer"] for key, row in expected.items())


def test_ones_own_questions(models, tmp_path):
    """Nine of them, an odd number, with and without images, before and after."""
    (tmp_path / "0.png").write_bytes(irrelevant_images("people", 1, size=48)[0].data)
    rows = [{"question": f"What is number {i}?"} | ({"image": "0.png"} if i % 3 else {}) for i in range(9)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ("predict", "--config=configs/data/questions.yaml", f"--data.root={tmp_path / 'questions.jsonl'}")
    options += (f"--model.source={models / 'adapter'}", "--answers.max_new_tokens=6", *FEW[-2:])
    here(tmp_path / "one", *options)
    launch(tmp_path / "two", *options, *on_two("fsdp"))
    one, two = ((tmp_path / name / "answers.jsonl").read_text() for name in ("one", "two"))
    assert one == two and len(one.splitlines()) == 9
