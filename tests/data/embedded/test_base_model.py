from __future__ import annotations

import hashlib
import json
from itertools import product
from pathlib import Path
from pydoc import locate

import pytest

from support.commands import ROOT, print_config
from viker_lightning.data.embedded import portraits
from viker_lightning.data.embedded.base_model import RECIPE, WEIGHTS, base_model, package, recipe
from viker_lightning.errors import UserError

LARGEST = 8_000_000
"""Bytes of what comes with the package."""


def test_the_packaged_weights_are_those_of_the_recipe() -> None:
    weights = (base_model() / WEIGHTS).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == recipe()["sha256"]
    assert sum(file.stat().st_size for file in base_model().iterdir()) <= LARGEST


def test_the_recipe_is_the_shipped_config() -> None:
    shipped, made = print_config(["fit", "--config", ROOT / "configs/mini/base.yaml"]), recipe()["config"]
    later = [name for name in shipped["data"]["init_args"] if name not in made["data"]["init_args"]]
    assert not any(shipped["data"]["init_args"].pop(name) for name in later), "options that came later change nothing"
    for part in ("model", "data"):  # the very same class, by whichever of its paths
        one, other = (locate(found[part].pop("class_path")) for found in (shipped, made))
        assert isinstance(one, type) and one is other
    assert made["model"] == shipped["model"] and made["data"] == shipped["data"]
    assert made["trainer"] == {"max_steps": shipped["trainer"]["max_steps"]}
    assert str(Path.home()) not in json.dumps(recipe()) and "/tmp" not in json.dumps(recipe())


def test_nobody_it_has_met_is_in_a_benchmark() -> None:
    benchmark = {
        (portraits.HEADS[portraits.benchmark_head(*traits)], *traits)
        for traits in product(portraits.FACIAL_HAIR, portraits.ACCESSORIES, portraits.SKINS, portraits.CLOTHING)
    }
    met = {portraits.identity(person) for person in portraits.cast(f"{portraits.NOBODY}mini/0", 160)}
    assert len(met) == 160 and not met & benchmark
    assert {portraits.identity(person) for person in portraits.cast("mini/0", 50)} <= benchmark


def test_a_run_is_packaged(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    with pytest.raises(UserError, match=r"run: holds no results.json and model/model.safetensors; give a finished run"):
        package(run, tmp_path / "base")
    (run / "model" / WEIGHTS).write_bytes(b"weights")
    (run / "model" / "checksums.txt").write_text("of the run\n")
    (run / "results.json").write_text(json.dumps({"after": {"test": {"accuracy": 0.5, "questions": 3}}}))
    (run / "provenance.json").write_text(json.dumps({"threads": 2, "base_weights": "/somewhere"}))
    trainer = "{default_root_dir: /somewhere, accelerator: cpu, max_steps: 3}"
    config = "seed_everything: 0\nmodel: {init_args: {base: mini}}\ndata: {init_args: {root: mini/nobody}}\n"
    (run / "config.yaml").write_text(f"{config}trainer: {trainer}\n")
    with pytest.raises(
        UserError, match=r"found model.base=mini and data.root=mini/nobody, expected untrained and mini"
    ):
        package(run, tmp_path / "base")
    (run / "config.yaml").write_text(f"{config.replace('base: mini', 'base: untrained')}trainer: {trainer}\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"mine: holds other files; give a new folder, or the package's own$"):
        package(run, tmp_path / "mine")
    folder = package(run, tmp_path / "base")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", WEIGHTS, RECIPE]
    assert package(run, folder) == folder, "what was packaged is replaced"
    written = json.loads((folder / RECIPE).read_text())
    assert written["after"] == {"test": {"accuracy": 0.5}} and written["threads"] == 2
    assert written["config"]["trainer"] == {"max_steps": 3} and "/somewhere" not in json.dumps(written)
