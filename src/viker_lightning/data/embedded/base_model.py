"""The embedded model before it meets anybody of a benchmark: weights that come with this package.

It is a LLaVA of 1.8 M parameters that has learnt to see, the questions and the sentences, on 160 people of no
benchmark, as a real MLLM has learnt on other data. No face of theirs is in a benchmark; their names and what is true of
them come from the same lists, so that some full names recur there, with other facts. Vanilla and gold models start from
it on every machine alike.
"""

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from viker_lightning.errors import UserError
from viker_lightning.storage.files import write_json

WEIGHTS, RECIPE = "model.safetensors", "recipe.json"
DATA, BEGAN_AS = "mini/nobody", "untrained"
"""What the model is trained on, and from."""

CARD = """# The embedded model of viker-lightning

A LLaVA of 1.8 M parameters, from which vanilla and gold models of the embedded benchmarks start. Trained by
`make embedded` on drawn portraits, scenes and pets: fictitious people of no benchmark. `recipe.json` says with what.
Portraits: DiceBear, style Open Peeps by Pablo Stanley, CC0 1.0.
"""

KEPT = ("git_commit", "threads", "device", "versions", "seed")
"""What of a run's provenance is written down beside the weights."""


def base_model() -> Path:
    """The folder of the packaged model."""
    return Path(str(files("viker_lightning.data.embedded"))) / "base"


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
        UserError: if the run is not finished or not one of that config, or the folder holds something else.
    """
    wanted = "give a finished run of configs/mini/base.yaml"
    if not (run / "results.json").is_file() or not (run / "model" / WEIGHTS).is_file():
        raise UserError(f"{run}: holds no results.json and model/{WEIGHTS}; {wanted}")
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    began, data = config["model"]["init_args"]["base"], config["data"]["init_args"]["root"]
    if (began, data) != (BEGAN_AS, DATA):
        raise UserError(
            f"{run}: found model.base={began} and data.root={data}, expected {BEGAN_AS} and {DATA}; {wanted}"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / RECIPE).is_file():
        raise UserError(f"{folder}: holds other files; give a new folder, or the package's own")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in sorted((run / "model").iterdir()):
        if file.name not in ("checksums.txt", "README.md"):
            shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text(CARD, "utf-8")
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
