"""Writing files and folders whole or not at all, and reading none that could run code."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import shutil
import stat
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from safetensors import SafetensorError

from viker_lightning.errors import UserError

DRAFT = f".{{}}-{'[0-9a-f]' * 12}.tmp"
"""What drafts are called: nobody else calls anything so."""


def check_folder(option: str, value: str | None) -> None:
    """Refuses the value of an option that is a file where a folder is meant, or could be no path at all."""
    try:
        wrong = "is a file" if value and Path(value).is_file() else ""
    except (OSError, ValueError) as error:
        wrong = f"cannot be a path ({getattr(error, 'strerror', error)})"
    if value and wrong:
        raise UserError(f"{option}: {value[:80]!r} {wrong}; give a folder")


def make_folder(option: str, folder: Path) -> None:
    """Makes the folder that an option names, and those it is in; an error if there can be none, in /proc, say."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{option}: {folder} cannot be made ({error.strerror}); give another folder") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write a file to; it takes the place of ``path`` if all went well.

    It is on the disk before it has the name, so that no power cut leaves half a file. What a killed process left is
    written over by the next: one process writes there at a time. If the disk is full or may not be written, the error
    names the file, and the former one is as it was.
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
def replacing_shared(path: Path) -> Iterator[Path]:
    """Writes a file, whole or not at all, that several processes may write at once: whoever is last has it.

    Each writes a draft of its own. There is no waiting for the disk: after a power cut the file may be half of one.
    """
    try:
        with draft(path.parent, path.stem) as folder:
            temporary = folder / path.name
            yield temporary
            temporary.replace(path)
    except BaseException as error:
        raise_named(error, path)


def write_text(path: Path, text: str) -> None:
    """Writes text, whole or not at all."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Writes a folder, whole or not at all. Killed between two names it leaves no ``path``, but never half of one."""
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


@contextlib.contextmanager
def draft(folder: Path, name: str) -> Iterator[Path]:
    """An empty folder of this process's own to write in; what is still there in the end is removed.

    It is locked for as long as the process lives, by which :func:`remove_drafts` knows those of killed ones.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".{name}-{uuid.uuid4().hex[:12]}.tmp"
        try:
            path.mkdir()
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # somebody cleared it away, or the folder
            continue
        with contextlib.suppress(OSError):  # where folders cannot be locked, none is taken for a killed one's
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            break
        os.close(handle)  # somebody cleared it away before it was locked
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def remove_drafts(folder: Path, name: str | None = None) -> list[Path]:
    """Removes drafts, of one name or of any, whose process is gone, and says which they were."""
    removed = []
    for left in sorted(folder.glob(DRAFT.format(glob.escape(name) if name else "*"))):
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error if its process lives
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
                removed.append(left)
            finally:
                os.close(handle)
    return removed


def keep_from_clearing(folder: Path, owner: object) -> None:
    """Keeps a folder from being cleared away for as long as an object of this process lives; it is made.

    Where nothing can be written or locked, nothing is held.

    Args:
        folder: any number of processes may hold it.
        owner: who uses it.
    """
    with contextlib.suppress(OSError):
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            release = weakref.finalize(owner, os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if folder.exists() and os.path.samestat(folder.stat(), os.fstat(handle)):
                break
            release()  # somebody cleared it away before it was locked


@contextlib.contextmanager
def free_to_clear(folder: Path) -> Iterator[bool]:
    """Whether nobody holds a folder or writes a draft in it; nobody can begin to hold it until this ends.

    Drafts of killed processes in it are removed.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:  # where folders cannot be locked, nobody could hold it
            pass
        for inner, _, _ in list(os.walk(folder)):
            remove_drafts(Path(inner))
            free = free and not any(Path(inner).glob(DRAFT.format("*")))
        yield free
    finally:
        os.close(handle)


def raise_named(error: BaseException, path: Path) -> NoReturn:
    """Raises an error again; one of the system names the file and has its number, even if safetensors reported it."""
    number = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    code = int(number[1]) if number else error.errno if isinstance(error, OSError) else None
    if code is None:
        raise error
    raise OSError(code, os.strerror(code), str(path)) from error


def check_index(index: Path) -> None:
    """Makes sure that ``model.safetensors.index.json`` names safetensors beside it alone.

    transformers opens whatever stands there, pickles and files elsewhere too.
    """
    try:
        named = {str(file): name for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{index}: no index of weights ({type(error).__name__}: {str(error).splitlines()[0]}); write the weights "
            "again with save_pretrained"
        ) from error
    for file, name in named.items():
        if not file.endswith(".safetensors") or file != PurePosixPath(file).name or "\\" in file:
            raise UserError(
                f"{index}: {name} is said to be in {file!r}; expected a .safetensors file in the same folder, since "
                "nothing is unpickled and nothing elsewhere is read; write the weights again with save_pretrained"
            )


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def opened(file: Path) -> BinaryIO:
    """Opens a file to be read.

    Raises:
        OSError: if it cannot be read, or is a pipe or a device, which may never end.
    """
    kind = file.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(file))
    return file.open("rb")
