"""The command line, driven on every shipped run config with tiny models."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from support.commands import OPEN_GATE, ROOT, csv_only
from support.marks import quick
from viker_lightning.cli.main import main
from viker_lightning.data.embedded import vision_tower
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.storage.runs import CheckpointFile
from viker_lightning.training.callbacks.order import trainer_defaults

RUNS = sorted((ROOT / "configs/mini").glob("*.yaml"))
METHODS = [p for p in RUNS if "Unlearn" in p.read_text()]
BY_DEFAULT = ("gradient_ascent", "manu", "npo", "viker")
EDITS = ("kvw", "manu", "prompt", "task_vector")
"""These take no steps."""
SHORT = ["--data.root=mini/ci", "--data.max_people=1", "--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
SHORT += ["--trainer.enable_progress_bar=false"]
SHORT += ["--evaluation.max_new_tokens=5"]  # untrained models would never stop talking


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Configs name other configs relative to the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def vanilla(tmp_path_factory, cache):
    """A vanilla run of two steps; answers are cut short as everywhere in this file."""
    run = tmp_path_factory.mktemp("runs") / "vanilla"
    main(["fit", "--config", str(ROOT / "configs/mini/vanilla.yaml"), *SHORT, *csv_only(run)])
    return run


TWO_SPLITS = "--data.splits=[forget,retain]"
ASCENT = "configs/mini/gradient_ascent.yaml"
"""The quickest method, where any would do."""


def unlearn(vanilla, run, *options, config="configs/mini/viker.yaml"):
    fixed = [f"--model.vanilla={vanilla}", *csv_only(run), *SHORT, TWO_SPLITS, *OPEN_GATE]
    main(["fit", "--config", str(config), *fixed, *options])
    return json.loads((run / "results.json").read_text())


def test_a_method_of_one_s_own(vanilla, tmp_path, monkeypatch, caplog):
    """Its file is kept with the run, and a run that goes on with another loss says so."""
    monkeypatch.syspath_prepend(tmp_path)
    file, method = tmp_path / "of_ones_own.py", "--model.method=of_ones_own.Mine"
    file.write_text("from viker_lightning.methods import GradientAscent\n\n\nclass Mine(GradientAscent):\n    pass\n")
    run = tmp_path / "run"
    unlearn(vanilla, run, method, "--evaluation.before=false", config=ASCENT)
    first = json.loads((run / "provenance.json").read_text())
    assert first["method_source"] | {"hash": ""} == {"module": "of_ones_own", "file": str(file), "hash": ""}
    assert (run / "method/of_ones_own.py").read_text() == file.read_text()
    file.write_text(file.read_text() + "    answers_only = True\n")
    more = ["--trainer.max_steps=3", "--ckpt_path=last", "--evaluation.before=false"]
    unlearn(vanilla, run, method, *more, config=ASCENT)
    second = json.loads((run / "provenance.json").read_text())
    assert second["method_source"]["hash"] != first["method_source"]["hash"]
    assert [one["method"] for one in second["earlier_sources"]] == [first["method_source"]["hash"]]
    assert "answers_only" in (run / "method/of_ones_own.py").read_text()
    assert "the source of of_ones_own has changed" in caplog.text


def close(summary):
    return {split: pytest.approx(values, abs=1e-6) for split, values in summary.items()}


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code not in (0, None)
    assert "\n" not in str(stop.value.code), "the message is one line"
    return f"{stop.value.code}\n{capsys.readouterr().err}"


def test_vanilla_run_folder(vanilla):
    for name in ("config.yaml", "provenance.json", "metrics.csv", "results.json", "predictions.parquet"):
        assert (vanilla / name).is_file(), name
    assert (vanilla / "model/model.safetensors").is_file()
    assert (vanilla / "checkpoints/last.ckpt").is_file()
    assert not list(vanilla.rglob("*.bin"))
    results = json.loads((vanilla / "results.json").read_text())
    assert set(results["after"]) == {"forget", "test", "retain", "real", "general", "overall"}
    assert results["steps"] == 2
    assert 0 <= results["knowledge"]["known"] <= 1
    assert json.loads((vanilla / "provenance.json").read_text())["private_parts"] == "recorded"


@pytest.mark.parametrize("config", quick(METHODS, lambda p: p.stem in BY_DEFAULT), ids=lambda p: p.stem)
def test_every_method(config, vanilla, tmp_path, request):
    if config.stem == "viker":
        tmp_path = request.getfixturevalue("finished")
    else:
        unlearn(vanilla, tmp_path, config=config)
    results = json.loads((tmp_path / "results.json").read_text())
    wanted = {"accuracy", "cloze", "rouge_l", "bleu", "keyword_match", "answer_probability", "private_probability"}
    wanted |= {"template_probability", "extraction_strength", "repetition", "n"}
    wanted |= {"accuracy_per_token", "keyword_match_whole", "refusals", "well_formed"}
    for when in ("before", "after"):
        assert wanted <= set(results[when]["forget"])
    full = "lora: null" in config.read_text()
    weights = "model/model.safetensors" if full else "adapter/adapter_model.safetensors"
    assert (tmp_path / weights).is_file()
    if config.stem == "viker":
        assert 0 <= results["key_tokens"]["auroc"] <= 1
        assert results["key_token_example"]["tokens"]
    assert results["before"] != results["after"]
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "forget/keyword_match" in header and ("train/loss" in header) == (results["steps"] > 0)
    assert results["steps"] == (2 if config.stem not in EDITS else 0)


@pytest.mark.parametrize(
    ("options", "ascent"),
    [
        (["direction=reverse", "ascent=hinge"], "hinge"),
        pytest.param(["direction=reverse", "same_image=true", "ascent=none"], "none", marks=pytest.mark.extended),
        pytest.param(["ascent=true"], "full", marks=pytest.mark.extended),  # as configs had it before
    ],
)
def test_viker_options(vanilla, tmp_path, options, ascent):
    options = [f"--model.method.{option}" for option in [*options, "retain_weight=0", "k=5"]]
    unlearn(vanilla, tmp_path, *options, "--model.seed=null", "--seed_everything=3", "--evaluation.before=false")
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["method"]["ascent"] == ascent and record["threads"] == torch.get_num_threads()
    drawn = record["irrelevant_images"]
    if "--model.method.same_image=true" in options:
        assert drawn is None
    else:
        assert (drawn["kind"], drawn["k"], drawn["seed"]) == ("scenes", 5, 3)
        wanted = irrelevant_images("scenes", 5, seed=3, size=vision_tower.SIZE)
        assert drawn["images"] == [{"source": one.source, "key": one.key} for one in wanted]


def test_validate_equals_the_end_of_fit(vanilla, tmp_path):
    gold = f"--evaluation.gold={vanilla}"
    results = unlearn(vanilla, tmp_path / "fit", gold)
    assert results["before"]["forget"]["kl_gold"] == pytest.approx(0, abs=1e-5), "gold is the model before"
    assert results["after"]["forget"]["kl_gold"] > 0
    fitted = results["after"]
    common = ["--config", "configs/mini/viker.yaml", f"--model.vanilla={vanilla}", *SHORT, TWO_SPLITS, gold]
    adapter = f"--model.adapter={tmp_path / 'fit/adapter'}"
    main(["validate", *common, adapter, *csv_only(tmp_path / "v")])
    found = json.loads((tmp_path / "v/results-validate.json").read_text())
    assert found["validate"] == close(fitted)
    record = json.loads((tmp_path / "fit/provenance.json").read_text())
    assert found["weights"]["source"] == str(vanilla / "model") and found["weights"]["commit"] is None
    assert found["weights"]["fingerprint"] == record["base_fingerprint"]
    checkpoint = f"--ckpt_path={tmp_path / 'fit/checkpoints/last.ckpt'}"
    main(["test", *common, checkpoint, *csv_only(tmp_path / "t")])
    assert json.loads((tmp_path / "t/results-test.json").read_text())["test"] == close(fitted)


def test_resume_goes_on_and_obeys_the_command_line(vanilla, tmp_path):
    whole = unlearn(vanilla, tmp_path / "whole", "--trainer.max_steps=4", config=ASCENT)
    unlearn(vanilla, tmp_path / "parts", config=ASCENT)
    checkpoint = f"--ckpt_path={tmp_path / 'parts/checkpoints/last.ckpt'}"
    parts = unlearn(vanilla, tmp_path / "parts", "--trainer.max_steps=4", checkpoint, config=ASCENT)
    assert parts["steps"] == 4
    assert parts["before"] == whole["before"] and parts["knowledge"] == whole["knowledge"]
    moments = pq.read_table(tmp_path / "parts/predictions.parquet")["when"].to_pylist()
    assert moments == pq.read_table(tmp_path / "whole/predictions.parquet")["when"].to_pylist()
    assert [p.name for p in (tmp_path / "parts/checkpoints").iterdir()] == ["last.ckpt"]
    assert len(list((tmp_path / "parts").glob("metrics*.csv"))) == 2


@pytest.mark.extended
def test_resume_in_the_middle_of_an_epoch_changes_nothing(vanilla, tmp_path):
    keep = ["--checkpoint.every_n_train_steps=2", "--checkpoint.save_top_k=-1", "--trainer.max_steps=5"]
    keep += ["--evaluation.before=false", "--evaluation.coherence=false"]
    unlearn(vanilla, tmp_path / "whole", *keep)
    unlearn(vanilla, tmp_path / "parts", *keep, f"--ckpt_path={tmp_path / 'whole/checkpoints/epoch=0-step=2.ckpt'}")
    one, two = (load_file(tmp_path / run / "adapter/adapter_model.safetensors") for run in ("whole", "parts"))
    for name, weight in one.items():
        assert torch.equal(two[name], weight), name


@pytest.mark.extended
def test_resume_obeys_a_new_learning_rate(vanilla, tmp_path):
    unlearn(vanilla, tmp_path, "--evaluation.before=false", config=ASCENT)
    options = [f"--ckpt_path={tmp_path / 'checkpoints/last.ckpt'}", "--trainer.max_steps=3", "--model.lr=1e-5"]
    unlearn(vanilla, tmp_path, *options, "--model.weight_decay=0.1", "--evaluation.before=false", config=ASCENT)
    group = CheckpointFile().load_checkpoint(tmp_path / "checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"][
        0
    ]
    assert group["lr"] == group["initial_lr"] == pytest.approx(1e-5)
    assert group["weight_decay"] == 0.1


def test_wandb_offline_by_default(vanilla, tmp_path):
    main(
        [
            *("fit", "--config=configs/mini/gradient_ascent.yaml", f"--model.vanilla={vanilla}", *SHORT, *OPEN_GATE),
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for logged in (b"forget/keyword_match", b"retain/accuracy", b"test/repetition", b"GradientAscent"):
        assert logged in content
    assert (tmp_path / "metrics.csv").is_file()


def test_a_run_of_a_sweep_is_sent(monkeypatch):
    found = []
    for name in ("OTHER", "WANDB_SWEEP_ID"):
        monkeypatch.setenv(name, "1")
        found.append(trainer_defaults()["logger"][1]["init_args"]["offline"])
    assert found == [True, False]


def test_wrong_key(capsys):
    said = fails(capsys, "fit", "--config", "configs/mini/viker.yaml", "--model.method.lamda=3")
    assert "lamda" in said


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--model.method.lam=-1", "lam=-1.0"),
        ("--data.batch_size=0", "batch_size=0"),
        ("--model.vanilla=nowhere/at/all", "no model could be loaded"),
        ("--model.vanilla=missing.yaml", "'missing.yaml' does not exist"),
    ],
)
def test_wrong_value(capsys, tmp_path, option, expected):
    said = fails(capsys, "fit", "--config=configs/mini/viker.yaml", *SHORT, *csv_only(tmp_path), option)
    assert said.startswith("error: ") and expected in said.split("\n")[0]


def test_predict_writes_answers(vanilla, tmp_path):
    main(["predict", "--config=configs/mini/viker.yaml", f"--model.vanilla={vanilla}", *SHORT, *csv_only(tmp_path)])
    rows = pq.read_table(tmp_path / "predictions-predict.parquet").to_pylist()
    assert {row["split"] for row in rows} == {"forget", "test", "retain", "real", "general"}


def test_unknown_split(capsys):
    said = fails(capsys, "fit", "--config", "configs/mini/viker.yaml", "--data.root=mini/ci", "--data.forget=7")
    assert "no split 'forget_7'" in said and "forget_10" in said


def test_no_such_folder(capsys):
    said = fails(capsys, "fit", "--config", "configs/mini/viker.yaml", "--data.root=mini/huge")
    assert "mini/ci" in said


def test_gate_stops_a_model_that_knows_nothing(capsys, vanilla, tmp_path):
    said = fails(
        capsys,
        *("fit", "--config", "configs/mini/viker.yaml", f"--model.vanilla={vanilla}", *SHORT),
        f"--trainer.default_root_dir={tmp_path}",
    )
    assert "does not know the forget set" in said and "known 0." in said
    assert not (tmp_path / "results.json").exists()


@pytest.mark.extended
def test_image_folder_without_images(capsys, vanilla, tmp_path):
    (tmp_path / "pictures").mkdir()
    said = fails(
        capsys,
        *("fit", "--config", "configs/mini/viker.yaml", f"--model.vanilla={vanilla}", *SHORT, *OPEN_GATE),
        *(*csv_only(tmp_path), f"--model.method.images={tmp_path / 'pictures'}"),
    )
    assert "found 0 images" in said
    for i, picture in enumerate(irrelevant_images("pets", 5, size=64)):
        (tmp_path / f"pictures/{i}.png").write_bytes(picture.data)
    five = (f"--model.method.images={tmp_path / 'pictures'}", "--model.method.k=5")
    assert unlearn(vanilla, tmp_path, *five, "--evaluation.before=false")


def test_non_finite_loss(capsys, vanilla, tmp_path):
    said = fails(
        capsys,
        *("fit", "--config", "configs/mini/gradient_ascent.yaml", f"--model.vanilla={vanilla}", *SHORT, *OPEN_GATE),
        *(*csv_only(tmp_path), "--model.lr=1e30", "--trainer.max_steps=5"),
    )
    assert "the loss is" in said and "model.lr" in said
    assert not (tmp_path / "results.json").exists()


@pytest.fixture
def broken(data, tmp_path):
    """A copy of the ci benchmark to spoil."""
    shutil.copytree(data.folder, tmp_path / "broken")

    def spoil(config, change):
        file = next((tmp_path / "broken" / config).glob("*.parquet"))
        table = pq.read_table(file)
        pq.write_table(change(table), file)
        return tmp_path / "broken"

    return spoil


def changed_row(table, index, **cells):
    rows = table.to_pylist()
    rows[index] |= cells
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("config", "change", "expected"),
    [
        ("ft_Data", lambda t: t.drop_columns(["metadata"]), "column 'metadata' is missing"),
        ("forget_10", lambda t: t.drop_columns(["Mask_Task"]), "column 'Mask_Task' is missing"),
        (
            "ft_Data",
            lambda t: changed_row(t, 2, images=None, image={"bytes": b"junk", "path": "x"}),
            "row 2, column 'image': not a readable image",
        ),
        ("ft_Data", lambda t: changed_row(t, 1, metadata="{"), "row 1, column 'metadata': not JSON"),
        ("ft_Data", lambda t: changed_row(t, 1, metadata='[{"Question": "Who?"}]'), "row 1.*Answer is None"),
        ("ft_Data", lambda t: changed_row(t, 1, ID="001"), "occurs twice"),
        ("forget_10", lambda t: changed_row(t, 0, ID="999"), "ID '999' has no row in ft_Data"),
    ],
)
def test_bad_data_is_named(capsys, vanilla, broken, tmp_path, config, change, expected):
    root = broken(config, change)
    options = [f"--model.vanilla={vanilla}", *SHORT, *OPEN_GATE, *csv_only(tmp_path / "run")]
    said = fails(capsys, "fit", "--config", "configs/mini/viker.yaml", *options, f"--data.root={root}")
    assert re.search(expected, said), said
    assert said.startswith("error: ") and "Traceback" not in said
    assert not (tmp_path / "run/results.json").exists()


def test_checkpoints_hold_trained_weights_only(finished):
    checkpoint = CheckpointFile().load_checkpoint(finished / "checkpoints/last.ckpt")
    assert checkpoint["state_dict"] and all("lora_" in name for name in checkpoint["state_dict"])
    assert "hyper_parameters" not in checkpoint
