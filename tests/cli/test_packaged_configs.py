"""Configs that come with the package, from a folder in which nothing lies."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from support.commands import ROOT, SHORT, command_line, print_config
from viker_lightning.cli.new import KINDS
from viker_lightning.errors import UserError
from viker_lightning.storage.packaged_configs import PREFIX, config_folder, config_path, config_paths
from viker_lightning.training import check_vanilla, vanilla, vanilla_model

VIKER = "viker_lightning:mini/viker.yaml"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """Nothing is here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leaves(value):
    """Texts anywhere in a YAML."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [text for part in parts for text in leaves(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("words", [[f"--config={VIKER}"], ["--config", VIKER], ["-c", VIKER]], ids=str)
def test_a_command_parses_in_an_empty_folder(words):
    config = print_config(["fit", *words, "--model.lr=0.5"])
    method = config["model"]["init_args"]["method"]
    assert method["class_path"].endswith("ViKeR") and method["init_args"]["lam"] == 8.19
    assert config["model"]["init_args"]["lr"] == 0.5, "what is typed behind it counts"
    named = config["model"]["init_args"]["vanilla"]
    assert named == "configs/mini/vanilla.yaml", "a run's config names no folder of this machine"
    check_vanilla("model.vanilla", named)


def test_a_command_typed_in_a_shell_parses(monkeypatch, capsys):
    cli = command_line()
    typed = ["viker-lightning", "fit", "--config", VIKER, "--config", f"{PREFIX}trainer/cpu.yaml", "--print_config"]
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(SystemExit) as stop:
        cli.parse_arguments(cli.parser, None)
    assert stop.value.code == 0 and "MLLMU" in capsys.readouterr().out
    assert sys.argv == typed, "what was typed is what was typed"


def test_the_vanilla_run_is_given_a_file(data, monkeypatch):
    asked = []

    monkeypatch.setattr(vanilla, "call_child", lambda words, _: asked.append(words) or 1)
    for name in ("configs/mini/vanilla.yaml", f"{PREFIX}mini/vanilla.yaml"):
        with pytest.raises(UserError, match="the vanilla run failed"):
            vanilla_model(name, data)
        words = asked.pop()
        given = Path(words[words.index("--config") + 1])
        assert given.read_bytes() == (ROOT / "configs/mini/vanilla.yaml").read_bytes()


def test_configs_name_configs_there_are():
    named = set()
    for file in config_folder().rglob("*.yaml"):
        named |= {text for text in leaves(yaml.safe_load(file.read_text("utf-8"))) if text.startswith("configs/")}
    assert "configs/mini/vanilla.yaml" in named and "configs/smol/vanilla.yaml" in named
    for name in named:
        assert Path(config_path(name)).is_absolute() and Path(config_path(name)).is_file(), name


def test_a_file_that_is_here_comes_first(empty):
    own = empty / "configs/mini/vanilla.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    assert config_path("configs/mini/vanilla.yaml") == "configs/mini/vanilla.yaml"
    assert config_path(f"{PREFIX}mini/vanilla.yaml") == str(ROOT / "configs/mini/vanilla.yaml")


def test_a_wheel_has_them_in_the_package(empty):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    pages = {f"docs/{page}": f"viker_lightning/pages/{page}" for page, _ in KINDS.values()}
    assert build["force-include"] == {"configs": "viker_lightning/configs", **pages}
    (empty / "site/viker_lightning/configs").mkdir(parents=True)
    assert config_folder(empty / "site/viker_lightning") == empty / "site/viker_lightning/configs"
    assert config_folder() == ROOT / "configs", "here they lie beside the sources"


def test_other_words_stay_as_they_are():
    words = ["fit", "--config=mine.yaml", "--data.root", "a=b", "configs/none.yaml", "--model.note=x=viker_lightning:y"]
    assert config_paths(words) == words
    assert config_path("configs/" + "x" * 5000) == "configs/" + "x" * 5000


@pytest.mark.parametrize("option", ["--config=", "--model.vanilla="])
def test_one_that_does_not_come_along_is_refused_in_one_line(option):
    cli = command_line()
    with pytest.raises(UserError, match=r"did you mean viker_lightning:mini/viker\.yaml") as error:
        cli.parse_arguments(cli.parser, ["fit", f"{option}viker_lightning:mini/vikre.yaml"])
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_wheel_does_a_whole_run_in_an_empty_folder(base_folder, tmp_path_factory, empty):
    """Built and installed as users do, but for the packages it needs, which are here already."""
    pytest.importorskip("hatchling", reason="pip install -e '.[dev]'")
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    quick = ["--no-deps", "--no-index"]
    done([*pip, "wheel", *quick, "--no-build-isolation", f"--wheel-dir={out}", str(ROOT)])
    (wheel,) = out.glob("viker_lightning-*.whl")
    done([*pip, "install", *quick, f"--target={out / 'site'}", str(wheel)])
    environment = os.environ | {"PYTHONPATH": str(out / "site")}
    where = [sys.executable, "-c", "import viker_lightning; print(viker_lightning.__file__)"]
    assert done(where, environment).strip() == str(out / "site/viker_lightning/__init__.py")
    options = [*SHORT, f"--model.vanilla={base_folder}", "--trainer.max_steps=2", "--evaluation.max_new_tokens=3"]
    command = [str(out / "site/bin/viker-lightning"), "fit", f"--config={PREFIX}mini/npo.yaml", *options]
    assert "before → after" in done([sys.executable, *command, "--trainer.logger=false"], environment)
    left = {path.name for path in (empty / "runs/mini/npo").iterdir()}
    assert {"results.json", "report.html", "predictions.parquet", "adapter"} <= left
    assert [path.name for path in empty.iterdir()] == ["runs"], "nothing else is left here"


def done(command, environment=None):
    """What a command prints; it must succeed."""
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout
