"""Where the weights of a run are, and which files are never opened."""

from __future__ import annotations

import hashlib
from pathlib import Path

from viker_lightning.errors import UserError


def weights_folder(source: str | Path) -> str | Path:
    """The weights in a run folder (``<run>/model``), or ``source`` itself if it is a model folder or a hub id.

    Raises:
        UserError: if the run is not finished.
    """
    inside = Path(source) / "model"
    if not inside.is_dir():
        return source
    if not (Path(source) / "results.json").is_file():
        raise UserError(f"{source}: this run is not finished (no results.json); run it again")
    return inside


def folder_fingerprint(folder: str | Path) -> str | None:
    """Hash of what is in a model folder: names and bytes of its settings and safetensors; ``None`` for a hub id."""
    here = Path(folder)
    if not here.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(path for path in here.iterdir() if path.suffix in (".safetensors", ".json", ".jinja")):
        with file.open("rb") as opened:
            digest.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_pickles(folder: str | Path, name: str = "*") -> None:
    """Makes sure that a folder with weights has them as safetensors; nothing that could run code is unpickled.

    Args:
        folder: a folder; anything else, such as a hub id, passes.
        name: what the weights are called, without suffix.

    Raises:
        UserError: if there are only pickled weights.
    """
    here = Path(folder)
    if not here.is_dir() or any(here.glob(f"{name}.safetensors")):
        return
    found = sorted(path.name for path in here.glob(f"{name}.*") if path.suffix in PICKLES)
    if found:
        raise UserError(
            f"{folder}: found {found[0]}, a pickle, which can run code when it is opened; expected safetensors only; "
            "write the weights with save_pretrained of a current transformers or peft"
        )
