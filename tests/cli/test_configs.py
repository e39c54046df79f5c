"""Every shipped config parses, by itself or behind a run's."""

import pytest
import yaml

from support.commands import ROOT, print_config
from support.marks import quick
from viker_lightning.cli.main import main


@pytest.mark.parametrize("config", sorted((ROOT / "configs/trainer").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_trainer_config_moves_a_run_and_leaves_the_rest(config):
    viker = ["fit", "--config", ROOT / "configs/mllmu/viker.yaml"]
    before, after = print_config(viker), print_config([*viker, "--config", config])
    named = yaml.safe_load(config.read_text())["trainer"]
    trainers = before.pop("trainer"), after.pop("trainer")
    for name in trainers[0]:
        found, expected = trainers[1][name], named.get(name, trainers[0][name])
        if isinstance(expected, dict):
            found, expected = found["class_path"], expected["class_path"]
        assert found == expected, name
    assert before == after


@pytest.mark.parametrize(
    "config",
    quick(
        [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if p.parent.name not in ("trainer", "attacks")],
        lambda p: p.parent.name == "mini" and p.stem in ("gold", "npo", "vanilla", "viker"),
    ),
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_every_config_parses(config):
    printed = print_config(["fit", "--config", config])
    assert printed["trainer"]["default_root_dir"] == f"runs/{config.parent.name}/{config.stem}"


def test_interpolation_obeys_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    extra = tmp_path / "extra.yaml"
    extra.write_text("data:\n  init_args:\n    max_people: 3\n")
    with pytest.raises(SystemExit):
        main(
            [
                *("fit", "--config=configs/mini/viker.yaml", f"--config={extra}", "--seed_everything=7"),
                *("--trainer.default_root_dir=elsewhere", "--print_config=all"),
            ]
        )
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["seed"] == 7
    assert printed["model"]["init_args"]["seed"] == 0  # irrelevant images are the same for every seed
    assert printed["data"]["init_args"]["max_people"] == 3
    assert printed["trainer"]["logger"][0]["init_args"]["save_dir"] == "elsewhere"
