"""The embedded model before it meets anybody of a benchmark: weights that come with this package.

It is a LLaVA of 1.8 M parameters that has learnt to see, the questions and the sentences, on people of no benchmark, as
a real MLLM has learnt on other data. Vanilla and gold models start from it on every machine alike.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from viker_lightning.errors import UserError
from viker_lightning.files import write_json

WEIGHTS, RECIPE = "model.safetensors", "recipe.json"
KEPT = ("git_commit", "threads", "device", "versions", "seed")
"""What of a run's provenance is written down beside the weights."""


def base_model() -> Path:
    """The folder of the packaged model."""
    return Path(str(files("viker_lightning.embedded"))) / "base"


def recipe() -> dict[str, Any]:
    """How the packaged weights were made, what they know, and their SHA-256."""
    found: dict[str, Any] = json.loads((base_model() / RECIPE).read_text("utf-8"))
    return found


def package(run: Path, folder: Path) -> Path:
    """Puts the model of a finished run where the package looks for it, with its recipe.

    Args:
        run: folder of ``fit --config configs/mini/base.yaml``.
        folder: of the package; what is there is replaced.

    Raises:
        UserError: if the run is not finished.
    """
    if not (run / "results.json").is_file():
        raise UserError(f"{run}: holds no results.json; give a finished run of configs/mini/base.yaml")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in sorted((run / "model").iterdir()):
        if file.name != "checksums.txt":
            shutil.copyfile(file, folder / file.name)
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    config["trainer"] = {"max_steps": config["trainer"]["max_steps"]}  # the rest is about the machine
    provenance = json.loads((run / "provenance.json").read_text("utf-8"))
    after = json.loads((run / "results.json").read_text("utf-8"))["after"]
    write_json(
        folder / RECIPE,
        {
            "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
            "config": {key: config[key] for key in ("seed_everything", "model", "data", "trainer")},
            **{key: provenance[key] for key in KEPT if key in provenance},
            "after": {split: {k: v for k, v in after[split].items() if isinstance(v, float)} for split in after},
        },
    )
    return folder
