"""The command line with models nobody has trained, and what it is given."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from viker_lightning.cli import main
from viker_lightning.evaluation import PublishedCLEAR

ROOT = Path(__file__).parents[2]


OPEN_GATE = ["--gate.knowledge=0", "--gate.follows_image=0", "--gate.follows_text=1"]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Configs name other configs relative to the repository; untrained models would never stop talking."""
    monkeypatch.chdir(ROOT)
    for name in ("predict", "knowledge"):
        monkeypatch.setattr(import_module(f"viker_lightning.evaluation.{name}"), "MAX_NEW_TOKENS", 3)
    monkeypatch.setattr(PublishedCLEAR, "max_new_tokens", 3)


def run(command, config, folder, vanilla, *options):
    """Runs the command line with a model nobody has trained, and reads the results."""
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": ""}}
    weights = [] if "vanilla" in config or "gold" in config else [f"--model.vanilla={vanilla}"]
    quick = ["--trainer.max_steps=2", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    fixed = [f"--trainer.default_root_dir={folder}", f"--trainer.logger={json.dumps(logger)}", *quick, *weights]
    main([command, "--config", f"configs/{config}.yaml", *fixed, "--trainer.accelerator=cpu", *options])
    return json.loads((folder / f"results{'' if command == 'fit' else f'-{command}'}.json").read_text())
