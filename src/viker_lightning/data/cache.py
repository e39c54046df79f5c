"""Where things that are built once are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder(*parts: str) -> Path:
    """A path in the user's cache folder; the environment variable ``VIKER_LIGHTNING_CACHE`` moves it."""
    root = os.environ.get("VIKER_LIGHTNING_CACHE") or platformdirs.user_cache_dir("viker-lightning", appauthor=False)
    return Path(root).joinpath(*parts)
