"""Cells as real runs: made once, gone on with, and without harm from one that fails."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from support import forked
from support.grids import tabulate
from viker_lightning.grids import read_grid
from viker_lightning.grids.__main__ import main
from viker_lightning.grids.tables import draw_figures
from viker_lightning.jobs.job import State
from viker_lightning.jobs.runner import job_environments, run_jobs

ROOT = Path(__file__).parents[2]
SHORT = {"data.root": "mini/ci", "data.max_people": 2, "trainer.max_steps": 2, "data.splits": ["forget", "retain"]}
SHORT |= {"gate.knowledge": 0, "gate.follows_image": 0, "gate.follows_text": 1, "trainer.logger": False}
SHORT |= {"evaluation.max_new_tokens": 3}  # untrained models would never stop talking


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache, base_folder):
    """A small grid whose last row fails, run once."""
    folder = tmp_path_factory.mktemp("grid")
    file = folder / "small.yaml"
    two_steps = {key: value for key, value in SHORT.items() if key.startswith("trainer.")}
    gold = {"config": "configs/mini/gold.yaml", "seeds": 1, "options": two_steps | {"model.base": str(base_folder)}}
    bad = {"options": {"model.method.k": 0}}
    mini = {"note": "Tiny.", "config": "configs/mini/viker.yaml", "gold": "Gold"}
    mini["options"] = {**SHORT, "model.vanilla": str(base_folder), "model.method.retain_weight": 0.0}
    mini["rows"] = {"Vanilla": {"before": "ViKeR"}, "Gold": gold, "Gold, other seed": {"again": "Gold"}}
    mini["rows"] |= {"ViKeR": {}, "bad": bad}
    columns = {"forget": {"rouge_l": "ROUGE-L", "keyword_match": "Keywords"}, "retain": {"rouge_l": "ROUGE-L"}}
    columns["forget"] |= {"coherence": "Coherence", "kl_gold": "KL to gold"}
    file.write_text(yaml.safe_dump({"title": "Small", "columns": columns, "scales": {"mini": mini}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr("viker_lightning.jobs.children.subprocess", forked.subprocess)
        with pytest.raises(SystemExit) as stop:
            main(["run", str(file), *arguments(folder)])
    return folder, file, str(stop.value.code)


def arguments(folder):
    return [f"--runs={folder / 'runs'}", f"--results={folder / 'results'}", "--scale=mini", "--seeds=1", "--jobs=2"]


@pytest.fixture
def cells(made, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder, file, _ = made
    return {cell.row: cell for cell in read_grid(file, "mini", 1).cells(folder / "runs")}


@pytest.mark.extended
def test_one_failure_stops_no_other_and_is_listed(made, cells):
    assert made[2] == "error: 1 of 4 runs failed: bad / seed 0"
    states = {name: cell.state() for name, cell in cells.items()}
    assert states == dict.fromkeys(["Gold", "Gold, other seed", "ViKeR"], State.FINISHED) | {"bad": State.FAILED}
    assert "k=0 must be >= 1" in cells["bad"].complaint()
    noted = cells["ViKeR"].note()
    assert noted["seconds"] > 0 and 50_000_000 < noted["peak_memory_bytes"] < 20_000_000_000
    assert noted["command"] == cells["ViKeR"].command


def test_table_in_every_form(made, cells):
    results = made[0] / "results"
    found = json.loads((results / "small-mini.json").read_text())
    values = found["values"][""]
    summary = json.loads((cells["ViKeR"].folder / "results.json").read_text())
    assert values["ViKeR"]["forget/rouge_l"]["mean"] == pytest.approx(summary["after"]["forget"]["rouge_l"], abs=1e-6)
    assert values["Vanilla"]["retain/rouge_l"]["mean"] == pytest.approx(
        summary["before"]["retain"]["rouge_l"], abs=1e-6
    )
    assert set(values["bad"].values()) == {None}
    assert [run["state"] for run in found["runs"]] == ["finished"] * 3 + ["failed"]
    text = (results / "small-mini.md").read_text()
    assert "| bad |  |  |  |  |  |" in text and "k=0 must be >= 1" in text and cells["ViKeR"].command in text
    assert (results / "figures/small-mini-cost.pdf").is_file()


def test_gold_is_judged_and_measured_against_itself(made, cells):
    """Gold has a coherence by the vanilla model; gold of another seed, and vanilla before training, a KL to gold."""
    values = json.loads((made[0] / "results/small-mini.json").read_text())["values"][""]
    there = {name: [s for s in ("coherence", "kl_gold") if rows[f"forget/{s}"]] for name, rows in values.items()}
    both = ["coherence", "kl_gold"]
    assert there == {"Vanilla": both, "Gold": both[:1], "Gold, other seed": both, "ViKeR": both, "bad": []}
    assert values["Gold, other seed"]["forget/kl_gold"]["mean"] > 0
    seeds = [json.loads((cells[row].folder / "results.json").read_text())["seed"] for row in values if "Gold" in row]
    assert seeds == [0, 1]
    text = (made[0] / "results/small-mini.md").read_text()
    assert "forget Coherence ↑ | forget Keywords ★ | forget KL to gold ↓ | forget ROUGE-L ★ | retain" in text


def test_finished_runs_are_not_made_again(made, cells, capsys):
    times = {name: (cell.folder / "results.json").stat().st_mtime_ns for name, cell in cells.items() if name != "bad"}
    console = Console(file=open(os.devnull, "w"))
    assert run_jobs([cells["Gold"], cells["ViKeR"]], 2, console) == []
    assert times == {name: (cells[name].folder / "results.json").stat().st_mtime_ns for name in times}


def test_changed_code_makes_other_runs(cells, monkeypatch):
    assert cells["ViKeR"].state() == State.FINISHED
    monkeypatch.setattr("viker_lightning.grids.cells.code_fingerprint", lambda _: "changed")
    assert cells["ViKeR"].state() == State.MISSING


def test_runs_that_were_moved_are_finished_still(made, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    shutil.copytree(made[0] / "runs", tmp_path / "elsewhere")
    moved = {cell.row: cell for cell in read_grid(made[1], "mini", 1).cells(tmp_path / "elsewhere")}
    assert moved["Gold"].state() == moved["ViKeR"].state() == State.FINISHED


def test_a_cell_that_cannot_even_start_stops_no_other(made, cells, monkeypatch):
    """Its folder cannot be written, say."""

    def refuse(*_):
        raise PermissionError("no room here")

    bad = replace(cells["bad"], folder=made[0] / "runs/other")
    monkeypatch.setattr(type(bad), "run", lambda cell, *_: refuse() if cell == bad else State.FINISHED)
    console = Console(file=io.StringIO())
    again = replace(cells["ViKeR"], folder=made[0] / "runs/another")
    assert run_jobs([bad, again], 1, console) == [bad]
    assert "failed: bad / seed 0: PermissionError: no room here" in console.file.getvalue()


def test_a_stopped_run_goes_on_where_it_was(made, cells):
    """Here the program is started; the other runs are forked."""
    viker = cells["ViKeR"]
    results = viker.folder / "results.json"
    before = json.loads(results.read_text())
    results.unlink()
    assert viker.state() == State.STARTED
    assert viker.run() == State.FINISHED
    after = json.loads(results.read_text())["after"]
    assert after == {split: pytest.approx(values, abs=1e-6) for split, values in before["after"].items()}
    assert not list(viker.folder.glob("earlier-*"))


def test_list_names_every_run(made, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    main(["list", str(made[1]), *arguments(made[0])])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].startswith("0\tfinished\tGold / seed 0\tpython -m viker_lightning fit")


def test_nothing_was_run(made, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    table = tabulate(read_grid(made[1], "mini", 1), tmp_path / "runs", tmp_path / "results")
    assert "4 of 4 runs are not finished." in (tmp_path / "results/small-mini.md").read_text()
    assert draw_figures(table, tmp_path / "figures") == []


def test_job_environments(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert job_environments(None) == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    assert [p["CUDA_VISIBLE_DEVICES"] for p in job_environments(3)] == ["2", "5", "2"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert all(int(p["OMP_NUM_THREADS"]) >= 1 for p in job_environments(None))


def test_a_failure_in_one_grid_stops_no_other(made, tmp_path, monkeypatch, capsys):
    """As make ablations and make figures run two."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("viker_lightning.jobs.children.subprocess", forked.subprocess)
    other = tmp_path / "other.yaml"
    found = yaml.safe_load(made[1].read_text())
    del found["scales"]["mini"]["rows"]["bad"]
    other.write_text(yaml.safe_dump(found))
    with pytest.raises(SystemExit) as stop:
        main(["run", str(made[1]), str(other), *arguments(made[0])])
    assert stop.value.code == "error: 1 of 4 runs failed: bad / seed 0"
    assert "all 3 runs are finished already" in capsys.readouterr().out
    assert (made[0] / "results/other-mini.md").is_file()
    with pytest.raises(SystemExit, match="sweep: found 2 grids, expected one"):
        main(["sweep", str(made[1]), str(other), *arguments(made[0])])
