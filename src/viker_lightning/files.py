"""Writing files and folders so that whoever looks, whenever, finds the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError

from .errors import UserError


def check_folder(option: str, value: str | None) -> None:
    """Refuses a file where a folder is meant.

    Args:
        option: whose value it is.
        value: a folder, or something that is no path at all.

    Raises:
        UserError: if it is the path of a file, or could be none.
    """
    try:
        wrong = "is a file" if value and Path(value).is_file() else ""
    except (OSError, ValueError) as error:
        wrong = f"cannot be a path ({getattr(error, 'strerror', error)})"
    if value and wrong:
        raise UserError(f"{option}: {value[:80]!r} {wrong}; give a folder")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write a file to; it takes the place of ``path`` if all went well.

    It is on the disk before it has the name, so that no power cut leaves half a file. What a killed process left is
    written over by the next.

    Args:
        path: a file in a folder that one process writes at a time; the folder is made.

    Raises:
        OSError: naming the file, if the disk is full or may not be written; the former file is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
        _to_disk(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise_named(error, path)


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
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise_named(error, path)


def raise_named(error: BaseException, path: Path) -> NoReturn:
    """Raises an error again; one of the system names the file and has its number, even if safetensors reported it."""
    number = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    code = int(number[1]) if number else error.errno if isinstance(error, OSError) else None
    if code is None:
        raise error
    raise OSError(code, os.strerror(code), str(path)) from error


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
