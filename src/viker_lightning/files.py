"""Writing files and folders so that whoever looks, whenever, finds the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write a file to; it takes the place of ``path`` if all went well.

    It is on the disk before it has the name, so that no power cut leaves half a file. What a killed process left is
    written over by the next.

    Args:
        path: a file in a folder that one process writes at a time; the folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
        _to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder of files. Killed between two names it leaves no folder ``path``, but never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    for folder in (temporary, former):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            _to_disk(file)
        if path.exists():
            path.replace(former)
        temporary.replace(path)
        _to_disk(path.parent)
        shutil.rmtree(former, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
