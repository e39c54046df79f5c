"""Every shipped config parses, by itself or behind a run's."""

from pathlib import Path

import pytest
import yaml

from viker_lightning.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("config", sorted((ROOT / "configs/trainer").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_trainer_config_moves_a_run_and_leaves_the_rest(config, capsys):
    printed = []
    for options in ([], ["--config", str(config)]):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", str(ROOT / "configs/mllmu/viker.yaml"), *options, "--print_config"])
        assert stop.value.code == 0
        printed.append(yaml.safe_load(capsys.readouterr().out))
    before, after = printed
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
    [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if p.parent.name != "trainer"],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_every_config_parses(config, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(config), "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["default_root_dir"] == f"runs/{config.parent.name}/{config.stem}"


def test_interpolation_obeys_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    extra = tmp_path / "extra.yaml"
    extra.write_text("data:\n  init_args:\n    max_people: 3\n")
    with pytest.raises(SystemExit):
        main(
            [
                *("fit", "--config=configs/mini/viker.yaml", f"--config={extra}", "--seed_everything=7"),
                *("--trainer.default_root_dir=elsewhere", "--print_config"),
            ]
        )
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["seed"] == 7
    assert printed["model"]["init_args"]["seed"] == 0  # irrelevant images are the same for every seed
    assert printed["data"]["init_args"]["max_people"] == 3
    assert printed["trainer"]["logger"][0]["init_args"]["save_dir"] == "elsewhere"
