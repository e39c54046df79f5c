"""W&B offline: the run file is read back, and holds every number, the config and the definitions."""

import csv
import json
import os
import struct
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import markupsafe
import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from support.commands import OPEN_GATE
from support.run_folders import key_tokens, write_run
from support.wandb_file import Offline
from viker_lightning.cli.main import main
from viker_lightning.reporting import probe_rows
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs import Run, read_run, wandb_run
from viker_lightning.training.callbacks import Dashboard, Report
from viker_lightning.training.callbacks.wandb_dashboard import STEP, final_numbers, job_type, probes

ROOT = Path(__file__).parents[3]
SHORT = ["--data.root=mini/ci", "--data.max_people=1", "--trainer.log_every_n_steps=1"]
SHORT += ["--trainer.enable_progress_bar=false"]
SHORT += ["--evaluation.max_new_tokens=3"]  # untrained models would never stop talking
TWO_SPLITS = "--data.splits=[forget,retain]"
FEW_STREAMS = ["--data.splits=[forget]", "--evaluation.before=false", "--evaluation.coherence=false"]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Configs name other configs relative to the repository."""
    monkeypatch.chdir(ROOT)


def fit(base_folder, run, *options):
    options = [f"--model.vanilla={base_folder}", *SHORT, *OPEN_GATE, f"--trainer.default_root_dir={run}", *options]
    main(["fit", "--config=configs/mini/viker.yaml", *options])
    return run


@pytest.fixture(scope="module")
def run(base_folder, tmp_path_factory):
    """A ViKeR run of three epochs of one step, evaluated after each, with the default loggers."""
    folder = tmp_path_factory.mktemp("runs") / "viker"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("WANDB_RUN_GROUP", "main table")
        options = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=1", "--evaluation.every_n_epochs=1"]
        options += ["--model.lr=1e-3"]  # a larger one has an untrained model say nothing, which has no coherence
        fit(base_folder, folder, *options)
    return folder


@pytest.fixture(scope="module")
def kept(run):
    return Offline(run)


def test_every_value_of_the_csv_file_is_there(run, kept):
    seen = 0
    with (run / "metrics.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            step = int(row.pop("step"))
            for name, value in row.items():
                if value:
                    assert (step, pytest.approx(float(value), nan_ok=True)) in kept.history[name], (name, step)
                    seen += 1
    assert seen > 100


def test_every_number_of_the_results_is_there(run, kept):
    results = json.loads((run / "results.json").read_text())
    assert {"before", "epoch 1", "epoch 2", "after"} <= set(results)
    for when, step in {"before": 0, "epoch 1": 1, "epoch 2": 2, "after": 3}.items():
        for split, numbers in results[when].items():
            for name, value in numbers.items():
                assert (step, pytest.approx(value)) in kept.history[f"{split}/{name}"], (when, split, name)
                if not when.startswith("epoch"):
                    assert kept.summary[f"{when}/{split}/{name}"] == pytest.approx(value)
    assert kept.summary["key_tokens/auroc"] == pytest.approx(results["key_tokens"]["auroc"])
    assert kept.summary["knowledge/known"] == results["knowledge"]["known"]
    assert kept.summary["steps"] == 3 and kept.summary["protocol"] == "corrected"


def test_a_short_run_has_a_curve(base_folder, tmp_path):
    """Steps are logged more often than every tenth where there are not two hundred."""
    fit(base_folder, tmp_path, "--trainer.max_steps=3", "--trainer.log_every_n_steps=10", *FEW_STREAMS)
    with (tmp_path / "metrics.csv").open(newline="") as lines:
        steps = [row["step"] for row in csv.DictReader(lines) if row["train/loss"]]
    assert steps == ["0", "1", "2"]


def test_the_whole_config_is_there(run, kept):
    config = yaml.safe_load((run / "config.yaml").read_text())
    given = yaml.safe_load((ROOT / "configs/mini/viker.yaml").read_text())
    lam = [told["model"]["init_args"]["method"]["init_args"]["lam"] for told in (given, config)]
    assert lam[0] == lam[1]
    assert {name: kept.config[name] for name in config} == config


def test_runs_are_grouped_by_table_and_method_and_named_as_their_folder(run, kept):
    assert (kept.group, kept.job_type, kept.name) == ("main table", "ViKeR", str(run))


def test_every_value_is_defined(run, kept):
    results = json.loads((run / "results.json").read_text())
    low, high = (
        ["retain/repetition"],
        ["retain/keyword_match", "test/coherence"],
    )
    near = ["forget/keyword_match", "test/rouge_l", "forget/bits_per_character", "general/n"]
    names = [f"{split}/{name}" for split, numbers in results["after"].items() for name in numbers]
    assert set(low + high + near) <= set(names)
    for name in names:
        found = kept.defined[name]
        assert found.step_metric == STEP and found.summary.last
        assert found.options.hidden == name.endswith("/n")
        if name in low + high + near:
            assert (found.summary.min, found.summary.max) == (name in low, name in high), name
    seen = [value for _, value in kept.history["retain/keyword_match"]]
    assert kept.summary["retain/keyword_match"] == {"last": seen[-1], "max": max(seen)}
    assert kept.defined["train/*"].step_metric == STEP
    assert kept.defined["epoch"].options.hidden


def test_what_is_no_number_stays_out_of_the_summary():
    results = {"after": {"forget": {"rouge_l": 0.5}}, "epoch 1": {"forget": {"rouge_l": 0.7}}}
    results |= {"other_weights": {"evaluation.judge": {"source": "some/judge", "commit": None}}}
    results |= {"metrics": {"rouge_l": "ROUGE-L"}, "people": {"forget": {"001": {"rouge_l": 0.5}}}, "seed": 3}
    results |= {"stopped": {"why": "loss"}, "key_token_example": {"answer": "Oslo", "tokens": [{"entropy": 1.0}]}}
    told = {"after/forget/rouge_l": 0.5, "seed": 3, "stopped/why": "loss"}
    assert dict(final_numbers(results)) == told | {"other_weights/evaluation.judge/source": "some/judge"}


def test_a_validate_run(base_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "checks")
    options = [f"--model.vanilla={base_folder}", *SHORT, f"--trainer.default_root_dir={tmp_path}"]
    main(["validate", "--config=configs/mini/viker.yaml", *options])
    kept = Offline(tmp_path)
    assert (kept.group, kept.job_type, kept.name) == ("checks", "validate", str(tmp_path))
    results = json.loads((tmp_path / "results-validate.json").read_text())
    for split, numbers in results["validate"].items():
        for name, value in numbers.items():
            assert kept.summary[f"validate/{split}/{name}"] == pytest.approx(value)
    assert not any(name.startswith("people") for name in kept.summary)


@pytest.mark.extended
def test_a_resumed_run_goes_on_with_the_run_it_had_on_the_server(base_folder, tmp_path):
    fit(base_folder, tmp_path, "--trainer.max_steps=1", *FEW_STREAMS)
    (first,) = (tmp_path / "wandb").glob("offline-run-*")
    fit(base_folder, tmp_path, "--trainer.max_steps=2", "--ckpt_path=last", *FEW_STREAMS)
    known = {path.name.split("-")[-1] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert len(known) == 2, "wandb sync would not keep two offline runs with one id"
    for path in (tmp_path / "wandb").glob("offline-run-*"):  # as if both had been sent as they ran, the second last
        path.rename(path.with_name(path.name.removeprefix("offline-")))
    latest = wandb_run(tmp_path)
    assert latest in known and latest not in first.name
    fit(base_folder, tmp_path, "--trainer.max_steps=3", "--ckpt_path=last", *FEW_STREAMS)
    (third,) = (tmp_path / "wandb").glob("offline-run-*")
    assert third.name.endswith(f"-{latest}")
    assert "WANDB_RUN_ID" not in os.environ


def test_nothing_known_of_a_run():
    assert wandb_run(Path("nowhere")) is None


def test_job_types():
    unlearning = Namespace({"model.init_args.method.class_path": "viker_lightning.methods.npo.NPO"})
    teaching = Namespace({"model.init_args.lr": 0.1, "data.init_args.stage": "gold"})
    assert job_type("fit", unlearning) == "NPO"
    assert job_type("fit", teaching) == "gold"
    assert job_type("validate", unlearning) == "validate"


def table(kept):
    """Rows of the last probe table, cells of media as what they are: the file of an artifact, by its checksum."""
    *_, (_, last) = kept.history["probes/answers/path"]
    return json.loads((kept.files / last).read_text())


def test_probe_questions(run, kept):
    """The table has what the run folder says, answered before and after, with pictures and the heat-map."""
    expected = probe_rows(read_run(run))
    found = table(kept)
    assert found["columns"] == [*expected[0]]
    assert {row["split"] for row in expected} == {"forget", "test", "retain", "real"}
    assert len(found["data"]) == len(expected) == len({row["id"] for row in expected})
    for cells, row in zip(found["data"], expected, strict=True):
        shown = dict(zip(found["columns"], cells, strict=True))
        media = {name: shown.pop(name) for name in ("picture", "key_tokens")}
        for name, value in shown.items():
            assert value == (pytest.approx(row[name]) if isinstance(row[name], float) else row[name]), name
        assert bool(media["picture"]) == bool(row["picture"])
        assert bool(media["key_tokens"]) == (row["split"] == "forget")
        assert row["before"] is not None and row["after"] is not None
        assert row["rouge_l_before"] is not None
    assert any(row["picture"] for row in expected)


def test_media_of_the_table_stay_in_the_run_folder(run, kept):
    """A sweep of the run folder takes the pictures of people with it."""
    files = [Path(entry.local_path) for artifact in kept.artifacts for entry in artifact.manifest.contents]
    assert any(entry.path.endswith(".png") for a in kept.artifacts for entry in a.manifest.contents)
    assert all(file.is_relative_to(run) and file.is_file() for file in files)


def test_key_tokens_as_a_page(run, kept):
    ((step, path),) = kept.history["probes/key_tokens/path"]
    page = (kept.files / path).read_text()
    assert step == 3 and "<script" not in page and "http" not in page.replace("http-equiv", "")
    for answer in json.loads((run / "key_tokens.json").read_text()):
        for token in answer["tokens"]:
            if word := token["token"].strip():
                assert str(markupsafe.escape(word)) in page
    assert "The ideal distribution would say" in page


def test_nothing_is_shown_before_anything_is_answered(tmp_path):
    assert probes(Run(tmp_path, {})) == {}


def test_before_training_the_table_has_no_answers_after(kept):
    (step, first), *_ = kept.history["probes/answers/path"]
    found = json.loads((kept.files / first).read_text())
    after = found["columns"].index("after")
    assert step == 0 and found["data"] and all(row[after] is None for row in found["data"])


@pytest.mark.parametrize("to_wandb", [True, False])
def test_people_stay_out_of_wandb_if_asked(tmp_path, to_wandb):
    """Neither questions nor answers nor pictures; the numbers are there either way."""
    folder = write_run(tmp_path / "run")
    write_json(folder / "key_tokens.json", key_tokens())
    logger = Mock(spec=WandbLogger)
    trainer = SimpleNamespace(loggers=[logger], callbacks=[Report(to_wandb=to_wandb)], is_global_zero=True)
    trainer.state, trainer.default_root_dir = SimpleNamespace(fn=TrainerFn.FITTING), str(folder)
    trainer.global_step = 20
    Dashboard().on_fit_end(trainer, None)
    logged = {name for call in logger.experiment.log.call_args_list for name in call.args[0]} - {STEP}
    assert logged == ({"probes/answers", "probes/key_tokens"} if to_wandb else set())
    (told,) = logger.experiment.summary.update.call_args.args
    assert told["after/overall/model_utility"] == 0.75


@pytest.mark.extended
def test_other_loggers_and_no_photos(base_folder, tmp_path):
    """TensorBoard and CSV, by the trainer's own option; what they keep is what the run measured."""
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    loggers = [
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": "", "version": ""}},
        {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path), "name": "board", "version": ""}},
    ]
    fit(base_folder, tmp_path, TWO_SPLITS, "--trainer.max_steps=1", f"--trainer.logger={json.dumps(loggers)}")
    (file,) = (tmp_path / "board").glob("events.out.tfevents.*")
    kept = scalars(file)
    results = json.loads((tmp_path / "results.json").read_text())
    for when, step in {"before": 0, "after": 1}.items():
        for split, numbers in results[when].items():
            for name, value in numbers.items():
                assert kept[f"{split}/{name}"][step] == pytest.approx(value, rel=1e-6), (when, split, name)
    assert (tmp_path / "metrics.csv").is_file() and not (tmp_path / "wandb").exists()


def test_a_logger_whose_package_is_missing_is_named_in_one_line(base_folder, tmp_path, monkeypatch):
    module = import_module("lightning.fabric.loggers.tensorboard")
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(module, name, False)
    board = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path)}}
    for logger in (board, [board]):
        with pytest.raises(SystemExit) as stop:
            fit(base_folder, tmp_path, f"--trainer.logger={json.dumps(logger)}")
        said = stop.value.code
        assert said.startswith("error: lightning.pytorch.loggers.TensorBoardLogger: ") and "\n" not in said
        assert "`tensorboardX`" in said and "pip install -e '.[tensorboard]'" in said and "Expected" not in said


def test_no_logger_at_all(base_folder, tmp_path):
    fit(base_folder, tmp_path, TWO_SPLITS, "--trainer.max_steps=1", "--trainer.logger=false", "--report.photos=false")
    assert {"before", "after"} <= set(json.loads((tmp_path / "results.json").read_text()))
    assert (tmp_path / "config.yaml").is_file() and (tmp_path / "report.html").is_file()
    assert not (tmp_path / "wandb").exists() and not (tmp_path / "metrics.csv").exists()
    assert not any(row["picture"] for row in probe_rows(read_run(tmp_path)))


def scalars(file):
    """Scalars of a TensorBoard event file, by name and step: records are length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, at, found = file.read_bytes(), 0, {}
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        at += 12 + length + 4
    return found
