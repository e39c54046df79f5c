"""A run that is stopped, whenever and however, goes on to the adapter it would have had."""

import errno
import os
import random
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from support.killing import command, dies, in_step, run, same, slurm_task, stand_in_repository
from viker_lightning.errors import UserError
from viker_lightning.models import tensor_files
from viker_lightning.storage.files import replacing, replacing_folder
from viker_lightning.storage.runs import (
    CheckpointFile,
    checkpoint_to_start_from,
    keep_earlier,
    last_checkpoint,
    set_aside,
)
from viker_lightning.storage.runs.checkpoint_file import rng_state, set_rng_state
from viker_lightning.storage.runs.resume import check_names, set_rates
from viker_lightning.training.callbacks import Evaluation


@pytest.fixture(autouse=True)
def here(monkeypatch):
    stand_in_repository(monkeypatch)


def in_evaluation(moment):
    """Dies in an evaluation."""
    evaluate = Evaluation.evaluate

    def evaluation(self, trainer, pl_module, when):
        if when == moment:
            self._answers = lambda *args: dies()
        return evaluate(self, trainer, pl_module, when)

    return lambda: setattr(Evaluation, "evaluate", evaluation)


def writing_checkpoint(step):
    """Dies when the bytes are there, under the temporary name."""
    save = CheckpointFile.save_checkpoint

    def save_checkpoint(self, checkpoint, *args, **kwargs):
        if checkpoint["global_step"] == step:
            os.fsync = lambda file: dies()
        save(self, checkpoint, *args, **kwargs)

    return lambda: setattr(CheckpointFile, "save_checkpoint", save_checkpoint)


def writing(name):
    """Dies when a file or a folder of this name is about to take its place."""
    replace = Path.replace

    def replaced(self, target):
        if target.name == name and ".tmp" in self.parent.name + self.name:
            dies()
        return replace(self, target)

    return lambda: setattr(Path, "replace", replaced)


POINTS = {  # in the order of a run: three steps an epoch, a checkpoint every two steps
    "evaluation before": in_evaluation("before"),
    "checkpoint 0": writing_checkpoint(0),
    "step 1": in_step(1),
    "checkpoint 2": writing_checkpoint(2),
    "evaluation after step 3": in_evaluation("epoch 1"),
    "step 5": in_step(5),
    "evaluation after step 6": in_evaluation("epoch 2"),
    "checkpoint 8": writing_checkpoint(8),
    "adapter": writing("adapter"),
    "model": writing("model"),
    "evaluation after": in_evaluation("after"),
    "results": writing("results.json"),
    "report": writing("report.html"),
}


ADAPTER = tuple(name for name in POINTS if name != "model")
FULL = tuple(name for name in POINTS if name != "adapter")
FEW = ("evaluation after step 3", "checkpoint 8")
FEW_FULL = ("step 1", "step 5")


@pytest.mark.parametrize(
    ("method", "points"),
    [
        pytest.param("npo", FEW, id="few"),
        pytest.param("viker-full", FEW_FULL, marks=pytest.mark.extended, id="few-full"),
        pytest.param("npo", ADAPTER, marks=pytest.mark.slow, id="npo"),
        pytest.param("viker", ADAPTER, marks=pytest.mark.slow, id="viker"),
        pytest.param("viker-full", FULL, marks=pytest.mark.slow, id="viker-full"),
    ],
)
def test_killed_again_and_again(whole, base_folder, tmp_path, method, points):
    """One run dies at these points in turn, each time going on from where it had been."""
    for name in points:
        prepare = POINTS[name]
        code = run(command(tmp_path, base_folder, "--ckpt_path=last", method=method), tmp_path / "said", prepare)
        assert code == -signal.SIGKILL, (name, code, (tmp_path / "said").read_text())
    assert run(command(tmp_path, base_folder, "--ckpt_path=last", method=method), tmp_path / "said") == 0
    (tmp_path / "said").unlink()
    same(whole(method), tmp_path)


@pytest.mark.extended
def test_shortened_epochs_go_on_where_they_were(base_folder, tmp_path):
    """With ``trainer.limit_train_batches`` an epoch ends before its data does."""
    made = [tmp_path / "whole", tmp_path / "killed"]
    assert run(command(made[0], base_folder, "--trainer.limit_train_batches=2"), tmp_path / "said") == 0
    for step in (3, 5):
        limited = command(made[1], base_folder, "--trainer.limit_train_batches=2", "--ckpt_path=last")
        assert run(limited, tmp_path / "said", in_step(step)) == -signal.SIGKILL
    assert run(limited, tmp_path / "said") == 0
    same(*made)


def test_what_draws_random_numbers_goes_on():
    state = rng_state()
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    set_rng_state(state)
    assert drawn == (random.random(), np.random.rand(), torch.rand(()).item())


STATE = {"global_step": 1, "epoch": 0, "loops": {}, "optimizer_states": [], "lr_schedulers": []}
STATE |= {"pytorch-lightning_version": "2.6.1", "state_dict": {}}


def test_a_checkpoint_holds_whatever_is_plain(tmp_path):
    tied = torch.arange(6.0).reshape(2, 3)
    given = STATE | {
        "a": [1, 2.5, float("inf"), None, True, "x"],
        "b": {0: (1, (2,)), "t": tied.t()},
        "c": {},
        "d": {"u": tied},
    }
    CheckpointFile().save_checkpoint(given, tmp_path / "c.ckpt")
    found = CheckpointFile().load_checkpoint(tmp_path / "c.ckpt")
    assert torch.equal(found["b"].pop("t"), given["b"].pop("t")) and torch.equal(found.pop("d")["u"], tied)
    del given["d"]
    assert found == given and b"pickle" not in (tmp_path / "c.ckpt").read_bytes()
    with pytest.raises(TypeError, match=r"a\.b is a set"):
        CheckpointFile().save_checkpoint({"a": {"b": {1}}}, tmp_path / "c.ckpt")
    assert CheckpointFile().load_checkpoint(tmp_path / "c.ckpt")["a"] == given["a"], "the former one stays"


def test_a_checkpoint_by_torch_is_read_without_running_code(tmp_path):
    torch.save(STATE | {"state_dict": {"w": torch.ones(2)}, "epoch": 3}, tmp_path / "old.ckpt")
    assert CheckpointFile().load_checkpoint(tmp_path / "old.ckpt", weights_only=True)["epoch"] == 3


def tensors(path, structure):
    save_file({"w": torch.ones(2)}, path, {"checkpoint": structure} if structure is not None else None)


FOREIGN = {
    "nothing": lambda path: path.write_bytes(b""),
    "junk": lambda path: path.write_bytes(b"junk" * 50),
    "a broken archive": lambda path: path.write_bytes(b"PK\3\4 junk"),
    "a folder": lambda path: path.mkdir(),
    "weights alone": lambda path: tensors(path, None),
    "no JSON": lambda path: tensors(path, "{"),
    "other JSON": lambda path: tensors(path, '{"a": 1, "b": 2}'),
    "deep JSON": lambda path: tensors(path, "[" * 99_999),
    "a tensor that is not there": lambda path: tensors(path, '{"tensor": "v"}'),
    "a list": lambda path: tensors(path, "[]"),
    "a tensor by torch": lambda path: torch.save(torch.ones(2), path),
    "weights by torch": lambda path: torch.save({"w": torch.ones(2)}, path),
    "another project's weights": lambda path: torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, path),
    "one key too few": lambda path: torch.save({k: v for k, v in STATE.items() if k != "loops"}, path),
    "another type": lambda path: torch.save(STATE | {"loops": 1}, path),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_is_named(tmp_path, kind):
    """An adapter holds weights alone."""
    FOREIGN[kind](tmp_path / "bad.ckpt")
    with pytest.raises(
        UserError, match=r"^ckpt_path: .*bad\.ckpt is no (readable )?checkpoint .*start afresh$"
    ) as error:
        CheckpointFile().load_checkpoint(tmp_path / "bad.ckpt", weights_only=True)
    assert "\n" not in str(error.value)
    assert kind != "weights alone" or "(it holds weights alone, as an adapter does)" in str(error.value)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({}, "1 trained weights are missing, 0 unexpected, e.g. 'w'"),
        ({"w": torch.ones(2), 3: torch.ones(2)}, "0 trained weights are missing, 1 unexpected, e.g. 3"),
        ({"w": torch.ones(3)}, r"w has shape \[3\], expected \[2\]"),
        ({"w": "text"}, r"w has shape \[\], expected \[2\]"),
    ],
)
def test_a_checkpoint_of_another_model_is_named(state, said):
    with pytest.raises(UserError, match=f"^checkpoint: {said}; it belongs to another model or LoRA setting$"):
        check_names({"state_dict": state}, {"w": torch.ones(2)})


@pytest.mark.parametrize(("begun", "now", "next_step"), [(0.2, 0.1, 0.25), (0.2, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_a_resumed_run_obeys_its_own_rate(begun, now, next_step):
    """How far the schedule has come is read off the rate; one of 0 does not tell, and is kept for a step."""
    checkpoint = {
        "optimizer_states": [{"param_groups": [{"lr": now, "initial_lr": begun, "weight_decay": 0.0}]}],
        "lr_schedulers": [{"base_lrs": [begun], "last_epoch": 3}],
    }
    set_rates(checkpoint, 0.5, 0.1)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group == {"lr": pytest.approx(next_step), "initial_lr": 0.5, "weight_decay": 0.1}
    assert checkpoint["lr_schedulers"] == [{"base_lrs": [0.5], "last_epoch": 3}], "which sets all steps after that"


def test_files_and_folders_are_replaced_whole(tmp_path):
    for replace, name in ((replacing, "file"), (replacing_folder, "folder")):

        def write(text, path=tmp_path / name, replace=replace):
            with replace(path) as new:
                (new / "x" if new.is_dir() else new).write_text(text)
                if text == "bad":
                    raise OSError("no space")

        def read(path=tmp_path / name):
            return (path / "x" if path.is_dir() else path).read_text()

        write("one")
        write("two")
        with pytest.raises(OSError, match="no space"):
            write("bad")
        assert read() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_errors_of_the_system_name_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*weights") as raised, replacing(tmp_path / "weights"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert raised.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_other_errors_stay_as_they_are(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="odd") as raised, replacing(tmp_path / "file"):
        raise TypeError("odd")
    assert raised.value.__cause__ is None, "who looks for causes would never come to an end"
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr(tensor_files, "save_file", Mock(side_effect=full))
    with pytest.raises(OSError, match=r"No space left on device: .*features"):
        tensor_files.save_atomically({"x": torch.ones(1)}, tmp_path / "features")
    assert not list(tmp_path.iterdir())


def test_the_last_checkpoint_may_be_that_of_a_requeued_job(tmp_path):
    """Of several, the one with the highest number; an older one than ``last.ckpt`` was gone on from long ago."""
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    made = ["checkpoints/last.ckpt", "hpc_ckpt_9.ckpt", "hpc_ckpt_10.ckpt"]
    for at, name in enumerate(made, start=1):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    assert last_checkpoint(tmp_path) == tmp_path / "hpc_ckpt_10.ckpt"
    os.utime(tmp_path / "checkpoints/last.ckpt", (3, 3))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints/last.ckpt"
    (tmp_path / "checkpoints/last.ckpt").unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "hpc_ckpt_10.ckpt"


def test_a_requeued_job_does_not_go_on_from_an_earlier_run(tmp_path):
    (tmp_path / "hpc_ckpt_2.ckpt").write_text("weights")
    set_aside(tmp_path)
    assert [path.name for path in (tmp_path / "earlier-1").iterdir()] == ["hpc_ckpt_2.ckpt"]
    assert not list(tmp_path.glob("hpc_ckpt_*"))


def test_a_requeued_job_starts_from_the_newest_checkpoint(tmp_path, monkeypatch):
    """Lightning by itself would take its own file, however old."""
    for name, value in slurm_task().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "checkpoints").mkdir()
    for at, name in enumerate(("hpc_ckpt_1.ckpt", "checkpoints/last.ckpt")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    assert checkpoint_to_start_from(tmp_path, "fit", None) == str(tmp_path / "checkpoints/last.ckpt")
    (tmp_path / "results.json").touch()
    assert checkpoint_to_start_from(tmp_path, "fit", None) is None, "a finished run is set aside"


@pytest.mark.parametrize(("there", "new"), [(["2"], 3), (["1", "3"], 4), (["1", "2", "10"], 11), (["2", "of-mine"], 3)])
def test_earlier_metrics_are_never_written_over(tmp_path, there, new):
    """Whichever of them somebody has removed, and whatever else is called so."""
    for name in there:
        (tmp_path / f"metrics-{name}.csv").write_text(name)
    (tmp_path / "metrics.csv").write_text("new")
    keep_earlier(tmp_path, "metrics.csv")
    assert [(tmp_path / f"metrics-{name}.csv").read_text() for name in there] == there
    assert (tmp_path / f"metrics-{new}.csv").read_text() == "new"


def test_a_fresh_run_begins_though_an_earlier_folder_is_gone(tmp_path):
    (tmp_path / "earlier-2").mkdir()
    for name in ("results.json", "metrics.csv", "metrics-1.csv"):
        (tmp_path / name).write_text("{}")
    set_aside(tmp_path)
    moved = sorted(path.name for path in (tmp_path / "earlier-3").iterdir())
    assert moved == ["metrics-1.csv", "metrics.csv", "results.json"], "the curves of a resumed run go with it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-2", "earlier-3"]


LEFT = {
    "killed before its first checkpoint": (["metrics.csv", "metrics-1.csv", "config.yaml", "provenance.json"], "run"),
    "curves alone": (["metrics-2.csv"], "commands"),
    "no results": (["key_tokens.json", "method", "skipped.txt"], "run"),
    "asked before": (["results-validate.json", "predictions-validate.parquet", "config-validate.yaml"], "commands"),
    "tested later": (["results.json", "results-test.json", "skipped-test.txt", "predictions-test.parquet"], "run"),
    "questions": (["answers.jsonl", "answers-1.jsonl", "config-predict.yaml", "metrics.csv"], "commands"),
}


@pytest.mark.parametrize("case", LEFT)
def test_nothing_can_be_mistaken_for_a_new_run_s(tmp_path, caplog, case):
    """The CSV logger would delete ``metrics.csv``, and a page would draw the curves of two runs as one."""
    names, of = LEFT[case]
    for name in names:
        (tmp_path / name).write_text("{}")
    (tmp_path / "results-of-mine.json").write_text("{}")
    set_aside(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-1", "results-of-mine.json"]
    assert sorted(path.name for path in (tmp_path / "earlier-1").iterdir()) == sorted(names)
    said = {"run": "an earlier run (unfinished)", "commands": "what earlier commands left"}[of]
    assert caplog.messages[-1] == f"{tmp_path}: {said} is now in earlier-1", "there is no checkpoint to go on from"
    caplog.clear()
    (tmp_path / "config.yaml").touch()
    set_aside(tmp_path)
    assert not caplog.messages and (tmp_path / "config.yaml").is_file(), "of a run that did nothing"


def test_what_could_have_gone_on_is_said(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    set_aside(tmp_path)
    assert "(unfinished) is now in earlier-1; --ckpt_path last would have resumed it" in caplog.text
