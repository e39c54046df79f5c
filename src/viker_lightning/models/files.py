"""Where the weights of a run are."""

from __future__ import annotations

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
