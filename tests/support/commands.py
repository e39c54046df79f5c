"""The command line with models nobody has trained, and what it is given."""

import json
from pathlib import Path

import pytest

from viker_lightning.cli import main
from viker_lightning.published import PublishedCLEAR

ROOT = Path(__file__).parents[2]


OPEN_GATE = ["--gate.known=0", "--gate.shown=0", "--gate.asked=1"]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Configs name other configs relative to the repository; CLEAR's authors let untrained models talk for long."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(PublishedCLEAR, "max_new_tokens", 3)


def run(command, config, folder, vanilla, *options):
    """Runs the command line with a model nobody has trained, and reads the results."""
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": ""}}
    weights = [] if "vanilla" in config or "gold" in config else [f"--model.vanilla={vanilla}"]
    quick = ["--evaluation.max_new_tokens=3", "--trainer.max_steps=2"]
    quick += ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    fixed = [f"--trainer.default_root_dir={folder}", f"--trainer.logger={json.dumps(logger)}", *quick, *weights]
    main([command, "--config", f"configs/{config}.yaml", *fixed, "--trainer.accelerator=cpu", *options])
    return json.loads((folder / f"results{'' if command == 'fit' else f'-{command}'}.json").read_text())
