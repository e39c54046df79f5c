"""``python -m viker_lightning.clean_cache``: removes what was built once, and says what it was and how large.

Everything there is made again when it is needed. What a run is building at the moment stays, and so do features that a
run keeps on disk (``model.engine.features: disk``) until it ends.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from viker_lightning.cache import cache_folder
from viker_lightning.files import remove_drafts, unheld

NAMES = {
    "models": r"(mini|smol)-[\w-]+",
    "vanilla": r"[0-9a-f]{12}",
    "merged": r"[0-9a-f]{12}",
    "benchmarks": r"mini-[\w-]+",
    "ideal": r"[0-9a-f]{32}",
    "features": r"[0-9a-f]{40}",
}
"""What the folders are called that this project makes there: nothing else is touched, wherever the cache may be."""

LEFT = r"\.?({})[.-]\w+(\.tmp)?"
"""What killed builds leave, of earlier versions too."""


def removable(root: Path) -> Iterator[Path]:
    """Folders in a cache that this project has made, and what killed processes left beside them."""
    for kind, name in NAMES.items():
        for path in sorted((root / kind).glob("*")):
            if path.is_dir() and (re.fullmatch(name, path.name) or re.fullmatch(LEFT.format(name), path.name)):
                yield path


def clean(root: Path) -> int:
    """Removes what this project has built in a cache, a line for each folder, and says how many bytes that were."""
    total = 0
    for kind in NAMES:
        for left in remove_drafts(root / kind):
            print(f"removed {left}: left by a killed process")
    for path in removable(root):
        if path.name.startswith(".") and path.suffix == ".tmp":
            print(f"kept {path}: a run is at work on it")
            continue
        with ExitStack() as held:
            try:
                for lock in (path.with_name(f"{path.name}.lock"), path / ".lock", *path.glob("build-*.lock")):
                    if lock.exists():
                        held.enter_context(FileLock(lock).acquire(timeout=0))
                free = held.enter_context(unheld(path))
            except Timeout:
                free = False
            if not free:
                print(f"kept {path}: a run is at work on it")
                continue
            size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
            total += size
            print(f"removed {path}: {size:,} bytes")
    return total


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    argparse.ArgumentParser(prog="python -m viker_lightning.clean_cache", description=__doc__).parse_args(arguments)
    root = cache_folder()
    print(f"{clean(root):,} bytes removed from {root}")


if __name__ == "__main__":
    main()
