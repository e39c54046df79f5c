"""validate on two processes over gloo, with uneven shares, gold model and coherence: every number is that of one."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import forked
from support.weights import random_adapter, random_vanilla
from viker_lightning.cli.main import main
from viker_lightning.data.datasets import CLEAR

pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory, base_folder):
    """A model that says something, and an adapter that changes what it says."""
    folder = tmp_path_factory.mktemp("weights")
    random_vanilla(base_folder, folder / "vanilla")
    random_adapter(folder / "vanilla", folder / "adapter")
    return folder


@pytest.fixture
def here(monkeypatch):
    """Configs name other configs relative to the repository."""
    monkeypatch.chdir(ROOT)


def arguments(run, weights, *options):
    return [
        *("validate", "--config=configs/clear/mini_viker.yaml", f"--trainer.default_root_dir={run}"),
        *("--data.root=mini/clear-ci", "--data.max_people=1", "--data.modality=both", "--data.splits=[forget,retain]"),
        *(f"--model.vanilla={weights / 'vanilla'}", "--trainer.logger=false", "--trainer.enable_progress_bar=false"),
        "--evaluation.max_new_tokens=5",  # untrained models would never stop talking
        *options,
    ]


def found(run):
    rows = pq.read_table(run / "predictions-validate.parquet").to_pylist()
    return json.loads((run / "results-validate.json").read_text()), rows


def test_two_processes_evaluate_as_one_does(weights, tmp_path, here, capsys):
    data = CLEAR("mini/clear-ci", forget=10, modality="both", max_people=1, splits=["forget", "retain"])
    data.prepare_data()
    data.setup()
    assert len(data.evaluation_groups()) % 2  # the shares are uneven
    main(arguments(tmp_path / "gold", weights))
    gold = tmp_path / "gold/predictions-validate.parquet"
    options = [f"--model.adapter={weights / 'adapter'}", f"--evaluation.gold_predictions={gold}"]
    options.append(f"--evaluation.gold={weights / 'vanilla'}")
    capsys.readouterr()
    main(arguments(tmp_path / "one", weights, *options))
    assert capsys.readouterr().out.count("What the model knows") == 1
    two = [*arguments(tmp_path / "two", weights, *options), "--trainer.strategy=ddp", "--trainer.devices=2"]
    assert forked.launch(lambda: main(two), tmp_path / "said").count("What the model knows") == 1
    (one, rows), (two, others) = found(tmp_path / "one"), found(tmp_path / "two")
    assert one["world_size"] == 1 and two["world_size"] == 2
    assert {"forget", "forget_text", "retain", "retain_text", "overall"} == set(one["validate"])
    wanted = {"forget_quality_p", "js_similarity", "mia_loss", "mia_min_k_plus_plus", "mia_reference", "kl_gold"}
    wanted |= {"coherence", "bits_per_character", "sacrebleu", "modality_gap_keyword_match"}
    assert wanted <= set(one["validate"]["forget"]) and one["validate"]["forget"]["kl_gold"] > 0
    assert 0 < one["validate"]["forget_text"]["forget_quality_p"] < 1  # counting answers twice would change it
    for split, values in one["validate"].items():
        assert two["validate"][split] == pytest.approx(values, rel=1e-4, abs=1e-5), split
    for split, people in one["people"].items():
        assert two["people"][split].keys() == people.keys()
        for person, values in people.items():
            assert two["people"][split][person] == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert two["knowledge"] == pytest.approx(one["knowledge"])
    names = ("split", "person", "modality", "task", "number", "answer")
    assert [[row[name] for name in names] for row in others] == [[row[name] for name in names] for row in rows]
