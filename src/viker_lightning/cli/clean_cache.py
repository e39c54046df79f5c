"""``python -m viker_lightning clean_cache``: removes what was built once, and says what it was and how large.

Everything there is made again when it is needed. What a run is building at the moment stays, and so do features that a
run keeps on disk (``model.engine.features: disk``) until it ends.
"""

import argparse
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from viker_lightning.errors import UserError
from viker_lightning.storage.cache import CHECKSUMS, cache_folder
from viker_lightning.storage.files import free_to_clear, remove_drafts

NAMES = {
    "models": r"(MODEL|mini-tower)-([0-9a-f]{12}|\d+)",
    "vanilla": r"[0-9a-f]{12}",
    "merged": r"[0-9a-f]{12}",
    "benchmarks": r"mini-\w+-\d+(-seed-\d+)?",
    "ideal": r"[0-9a-f]{32}",
    "features": r"[0-9a-f]{40}",
}
"""What the folders are called that this project makes there: nothing else is touched, wherever the cache may be.
MODEL is any embedded model."""

HASH = re.compile("[0-9a-f]{12}$")
"""How a name ends that nobody else gives; a folder with another is ours if it has our checksums, too."""


def removable(root: Path) -> Iterator[Path]:
    """Folders in a cache that this project has made."""
    from viker_lightning.data.embedded.embedded_models import EMBEDDED_MODELS  # transformers: --help need not wait

    for kind, name in NAMES.items():
        name = name.replace("MODEL", "|".join(EMBEDDED_MODELS))
        for path in sorted((root / kind).glob("*")):
            if path.is_dir() and re.fullmatch(name, path.name):
                if HASH.search(path.name) or (path / CHECKSUMS).is_file():
                    yield path


def clean(root: Path) -> int:
    """Removes what this project has built in a cache, a line for each folder, and says how many bytes that were."""
    total = 0
    for kind in NAMES:
        for left in remove_drafts(root / kind):
            print(f"removed {left}: left by a killed process")
    for path in removable(root):
        try:
            size = remove(path)
        except OSError as error:
            found = f"{error.filename or path}: cannot be removed ({error.strerror or error})"
            raise UserError(f"{found}; let it, and the folder it is in, be written to") from error
        if size is None:
            print(f"kept {path}: a run is at work on it")
        else:
            total += size
            print(f"removed {path}: {size:,} bytes")
    return total


def remove(path: Path) -> int | None:
    """Removes a folder and says how many bytes it had; ``None``, and nothing is removed, if a run is at work on it."""
    with ExitStack() as held:
        try:
            for lock in (path.with_name(f"{path.name}.lock"), path / ".lock", *path.glob("build-*.lock")):
                if lock.exists():
                    held.enter_context(FileLock(lock).acquire(timeout=0))
            free = held.enter_context(free_to_clear(path))
        except Timeout:
            free = False
        if not free:
            return None
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return size


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    argparse.ArgumentParser(prog="python -m viker_lightning clean_cache", description=__doc__).parse_args(arguments)
    from viker_lightning.terminal.failures import ending_in_one_line  # brings Lightning, which --help need not wait for

    with ending_in_one_line():
        root = cache_folder()
        print(f"{clean(root):,} bytes removed from {root}")


if __name__ == "__main__":
    main()
