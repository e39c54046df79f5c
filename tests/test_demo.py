"""The whole story on the smallest benchmark: learn, unlearn, still speak. Takes minutes; and what the demo shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.grids import finish
from support.marks import quick
from viker_lightning.grids import read_grid
from viker_lightning.grids.__main__ import main

ROOT = Path(__file__).parent.parent
METHODS = ["GA", "GradDiff", "KL-Min", "NPO", "IDK", "Stranger", "ViKeR"]
CONFIGS = ["gold", "gradient_ascent", "gradient_difference", "kl_minimization", "npo", "idk", "viker", "stranger"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """ViKeR from an empty cache: it must make benchmark and vanilla run by itself; the model comes with the package."""
    folder = tmp_path_factory.mktemp("story")
    command = [
        *(sys.executable, "-m", "viker_lightning", "fit", "--config=configs/mini/viker.yaml", "--data.root=mini/ci"),
        *("--trainer.logger=false", f"--trainer.default_root_dir={folder / 'run'}"),
    ]
    environment = os.environ | {"VIKER_LIGHTNING_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Building" not in done.stdout and "no vanilla model" in done.stdout
    return json.loads((folder / "run/results.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_vanilla_knows_and_looks(run):
    knowledge = run["knowledge"]
    assert knowledge["known"] > 0.9 and knowledge["follows_image"] > 0.9 and knowledge["follows_text"] < 0.06


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_forgotten_and_kept(run):
    before, after = run["before"], run["after"]
    assert before["test"]["keyword_match"] > 0.8
    assert after["test"]["keyword_match"] < 0.3
    assert after["retain"]["keyword_match"] > 0.7
    assert after["test"]["template_probability"] > 0.8
    assert after["test"]["repetition"] < 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_entropy_finds_private_tokens(run):
    """Bounds of the ci size: with 7 values an attribute, not 14, the frozen model is surer of its guesses.

    0.867 and 0.940 were measured on one machine, 0.846 of all tokens on another.
    """
    assert run["key_tokens"]["auroc"] > 0.8 and run["key_tokens"]["auroc_first"] > 0.88


def demo(folder, *arguments, command="run"):
    """The demo's grid, as make demo calls it."""
    place = ["--scale=mini", f"--runs={folder / 'runs'}", f"--results={folder / 'results'}"]
    main([command, "experiments/demo.yaml", *place, *arguments])


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_no_seeds_are_refused_before_anything_runs(here, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        demo(tmp_path, "--seeds=0")
    assert stop.value.code == "error: --seeds: found 0, expected 1 or more"
    assert not capsys.readouterr().out and not any(tmp_path.iterdir())


def test_gold_is_made_once_and_every_method_with_every_seed(here, tmp_path):
    """And vanilla, which is the model that all begin with, is evaluated once."""
    cells = read_grid(Path("experiments/demo.yaml"), "mini", 2).cells(tmp_path)
    assert [(cell.row, cell.seed) for cell in cells[:2]] == [("Gold", 0), ("GA", 0)]
    assert [cell.row for cell in cells[1:]] == [row for row in METHODS for _ in range(2)]
    assert {cell.config for cell in cells} == {f"configs/mini/{name}.yaml" for name in CONFIGS}
    assert [cell.row for cell in cells if cell.options.get("evaluation.before", True) and cell.gold] == ["ViKeR"]


@pytest.mark.parametrize("seeds", quick([1, 2], [1]))
def test_what_the_demo_shows(here, tmp_path, monkeypatch, capsys, seeds):
    monkeypatch.setenv("COLUMNS", "200")
    for cell in read_grid(Path("experiments/demo.yaml"), "mini", seeds).cells(tmp_path / "runs"):
        finish(cell, told=0 if cell.row in ("Gold", "ViKeR") else 2, key_tokens=cell.row == "ViKeR")
    demo(tmp_path, f"--seeds={seeds}")
    shown = capsys.readouterr().out
    assert f"all {1 + 7 * seeds} runs are finished already" in shown
    for name in ("Vanilla", "Gold", *METHODS):
        assert re.search(rf"^ *{name} +[01]\.\d\d ", shown, re.MULTILINE), name
    assert "Template ↑" in shown and "Key-token entropy (ViKeR): AUROC, all private tokens 0.9" in shown
    answers = shown[shown.index("before and after ViKeR") :]
    asked = [line for line in answers.splitlines() if "Where, 0?" in line]
    assert [line.split()[1:3] for line in asked] == [["forget", "001"], ["retain", "050"]]
    assert re.search(r"Oslo0\. +She lives in Oslo0\. +She lives in Rome\.", asked[0]), "truth, before and after"
    assert re.search(r"Oslo0\. +She lives in Oslo0\. +She lives in Oslo0\.", asked[1])
    assert f"{tmp_path / 'results/demo-mini.html'} compares the runs" in shown
    page = (tmp_path / "results/demo-mini.html").read_text()
    assert "What is forgotten against what is kept" in page and 'id="answers"' in page and 'id="tokens"' in page
