"""Where things that are built once are kept: checked whenever they are used, built again where they are damaged."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pyarrow.parquet as pq
from filelock import FileLock
from safetensors import safe_open

from viker_lightning.errors import UserError, say

from .files import draft, remove_drafts, replacing

CHECKSUMS = "checksums.txt"
"""What a built folder holds beside its files; ``sha256sum --check checksums.txt`` reads it, too."""

LARGEST = 2**30
"""Bytes of the largest file whose content is checked (a second or so); of larger ones it is seen whether they end."""


def cache_folder(*parts: str) -> Path:
    """A path in the user's cache folder; the environment variable ``VIKER_LIGHTNING_CACHE`` moves it.

    Raises:
        UserError: if nothing is there yet, and nothing can be written there.
    """
    root = os.environ.get("VIKER_LIGHTNING_CACHE") or platformdirs.user_cache_dir("viker-lightning", appauthor=False)
    folder = Path(root).joinpath(*parts)
    with contextlib.suppress(OSError):  # that it may be written to does not say that there can be a folder: in /proc
        Path(root).mkdir(parents=True, exist_ok=True)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if existing != folder and not (existing.is_dir() and os.path.isdir(root) and os.access(existing, os.W_OK)):
        raise UserError(
            f"cache folder {root}: {existing} is no folder that can be written to; set VIKER_LIGHTNING_CACHE to another"
        )
    return folder


def built(folder: Path, what: str, build: Callable[[Path], object]) -> Path:
    """A folder that is built once, and again where it is not what was written; a line says so.

    Args:
        folder: where it is.
        what: what is built, for the line.
        build: writes it into a folder, ``config.json`` among its files.
    """
    if damage(folder, "config.json") is None:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        remove_drafts(folder.parent, folder.name)
        why = damage(folder, "config.json")
        if why is None:
            return folder
        if folder.exists():
            say(f"{folder} is damaged ({why}) and is made again")
        say(f"Building {what} (once) in {folder}")
        with draft(folder.parent, folder.name) as new:
            build(new)
            note_checksums(new)
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    return folder


def note_checksums(folder: Path) -> None:
    """Writes the SHA-256 of every file of a folder beside them, by which :func:`damage` knows them."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _checked(folder)]
    with replacing(folder / CHECKSUMS) as new:  # others may be reading it
        new.write_text("".join(lines), "utf-8")


def damage(folder: Path, needs: str) -> str | None:
    """What is wrong with a folder that was built once; ``None`` if nothing is.

    Files are compared with their checksums; one that has none where others do is damage, too, or a list that was cut
    short would hide what it lost. Hidden files are nobody's (``.DS_Store``). A folder that an earlier version made has
    no checksums: what can be seen without is looked at, and they are noted for the next time.

    Args:
        folder: the folder.
        needs: a file without which it is not there.
    """
    if not (folder / needs).is_file():
        return f"{needs} is missing"
    noted = (folder / CHECKSUMS).is_file()
    try:
        why = (_altered_file(folder) if noted else None) or _unreadable_file(folder, above=LARGEST if noted else 0)
    except (OSError, ValueError) as error:
        return str(error)
    if why is None and not noted:
        with contextlib.suppress(OSError):  # a cache that may only be read
            note_checksums(folder)
    return why


def _altered_file(folder: Path) -> str | None:
    """Which file is not as its checksum says, and how; ``None`` if there is none."""
    listed = set()
    for line in (folder / CHECKSUMS).read_text("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed.add(name)
        if not name:
            return f"{CHECKSUMS} is cut short"
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _digest(folder / name) != digest:
            return f"{name} is not what was written"
    unlisted = [name for name in _checked(folder) if name not in listed]
    return f"{unlisted[0]} is not in {CHECKSUMS}" if unlisted else None


def _unreadable_file(folder: Path, above: int) -> str | None:
    """Which file of more than so many bytes cannot be read, and why; ``None`` if there is none."""
    for file in sorted(folder.rglob("*")):
        if file.stat().st_size > above and (why := unreadable(file)):
            return f"{file.relative_to(folder)}: {why}"
    return None


def _checked(folder: Path) -> list[str]:
    """The files of a folder whose content is checked, by their path from there."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != CHECKSUMS]
    names = [file.relative_to(folder) for file in files if file.stat().st_size <= LARGEST]
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def unreadable(file: Path) -> str | None:
    """Why a file cannot be read, as far as its beginning and its end tell."""
    try:
        if file.suffix in (".safetensors", ".ckpt"):
            with safe_open(file, framework="pt"):
                pass
        elif file.suffix == ".parquet":
            pq.read_metadata(file)
        elif file.suffix == ".json":
            json.loads(file.read_text("utf-8"))
    except Exception as error:
        return str(error).splitlines()[0]
    return None
