"""Where things that are built once are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from viker_lightning.errors import UserError


def cache_folder(*parts: str) -> Path:
    """A path in the user's cache folder; the environment variable ``VIKER_LIGHTNING_CACHE`` moves it.

    Raises:
        UserError: if nothing is there yet, and nothing can be written there.
    """
    root = os.environ.get("VIKER_LIGHTNING_CACHE") or platformdirs.user_cache_dir("viker-lightning", appauthor=False)
    folder = Path(root).joinpath(*parts)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there != folder and not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(
            f"cache folder {root}: {there} is no folder that can be written to; set VIKER_LIGHTNING_CACHE to another"
        )
    return folder
