"""How a run that fails says so: errors a user can fix, in one line that says what to do."""

import errno
import os
import re
import select
import signal
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from viker_lightning.errors import UserError, in_terminal
from viker_lightning.storage.secrets import hide
from viker_lightning.storage.sources import INSTALLED, PACKAGE

UNWRITABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room"),
    errno.EFBIG: "allow larger files (ulimit -f)",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable"),
}
"""What the system says where nothing can be written, and what to do."""

RESUME = "resume with --ckpt_path last: what was saved is intact"
"""What to do then, where a run was at work; other programs are typed again."""

FULL = re.compile(r"can(no|')t allocate memory", re.IGNORECASE)
"""What PyTorch, safetensors and the system say where main memory, or the address space, is used up."""

EXTRAS = {"TensorBoardLogger": "; pip install -e '.[tensorboard]' in the repository"}
"""What to do where a class of others wants a package that only an extra brings."""

LIBRARIES = (PACKAGE, Path(sysconfig.get_path("stdlib")))
"""Folders whose files are nobody's own."""

_UNMADE = re.compile(r"( *)(?:- )?Problem with given class_path '([^']+)':\n((?:\1 {2,}.*\n?)+)")


def one_line(error: BaseException, then: str = RESUME) -> str | None:
    """What a user can fix, in one line, and how it goes on ``then``; ``None`` if it is not for a user to fix.

    Of a method, score, attack, dataset or family of a user's own it is file and line; ``sys.exit`` there is an error.
    """
    if isinstance(error, SystemExit):
        return _in_own_file(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return f"{error}; {what_to_do(error, then)}"
    if type(error).__module__.startswith("wandb.errors"):
        return f"trainer.logger: W&B says: {' '.join(str(error).split())}; mend its options, or leave it out"
    if isinstance(error, MisconfigurationException):  # of the trainer: no GPU, two options at odds
        return f"trainer: {' '.join(str(error).split())}; see configs/trainer for what fits together"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or FULL.search(str(error)):
        said = ". ".join(" ".join(str(error).split()).split(". ")[:2])  # what follows is of PyTorch's allocator
        return (
            f"{said.rstrip('.') or 'main memory is used up'}; lower model.engine.max_tokens, set "
            "model.engine.gradient_checkpointing=true, or model.quantize=nf4 with LoRA; the command check says what "
            "a run takes"
        )
    cause: BaseException | None = error
    found = None
    while cause is not None:  # the parser wraps what a class refuses
        refused = isinstance(cause, UserError)
        found = found or (str(cause) if refused else None)
        explained = found and isinstance(cause, OSError)  # of a disk or the network: nobody's mistake
        if not explained and (own := _in_own_file(cause)):
            return found if refused else own
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found or unmade(error)


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Within this a program ends as a user may expect: what can be fixed in one line and exit code 1, and Ctrl-C too.

    Clusters and make send SIGTERM, which is the same as Ctrl-C: what is running saves, and goes on the next time. Where
    ``head`` has read enough of what is printed, it ends as other programs do.
    """
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command resumes where this one was")
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) and _unread():
            sys.exit(128 + signal.SIGPIPE)
        if (line := one_line(error, "give the same command again")) is None:
            raise
        sys.exit(ending(line))
    finally:
        signal.signal(signal.SIGTERM, former)


def ending(line: object) -> str:
    """The last line of a command that failed, without secrets and control characters."""
    return in_terminal(hide(f"error: {line}"))


def _unread() -> bool:
    """Whether nobody reads what is printed any more; what is left is thrown away, or Python's end would complain."""
    polled, number = select.poll(), sys.stdout.fileno()
    polled.register(number, 0)  # of errors alone
    unread = bool(polled.poll(0))
    if unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return unread


def what_to_do(error: OSError, then: str = RESUME) -> str:
    """What fixes an error of :data:`UNWRITABLE`: it may be one of reading, too, of a file that is there."""
    file = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else None
    if file is not None and error.errno in (errno.EACCES, errno.EPERM):
        places = (one for one in (file, *file.parents) if os.path.exists(one))
        there = next(places, file)  # in a shut folder nothing is there
        if not os.access(there, os.R_OK):
            return "make it readable, or give another"
    return f"{UNWRITABLE[error.errno or errno.EPERM]}, then {then}"


def unmade(error: BaseException) -> str | None:
    """Which class of a config could not be made, and why, e.g. that a logger's package is missing; ``None`` if none.

    The parser wraps what a class says in many lines of its own.
    """
    found = _UNMADE.search(str(error)) if isinstance(error, ValueError) else None
    if found is None:
        return None
    name, why = found[2], " ".join(found[3].split())
    return f"{name}: {why}{EXTRAS.get(name.rpartition('.')[2], '')}"


def _in_own_file(error: BaseException) -> str | None:
    """``FILE:LINE: Type: message``, with the last line outside of Python, libraries and this package; ``None`` if none.

    A traceback begins where an error is caught, so the program that called is not looked at.
    """
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    said = str(error)
    if isinstance(error, SyntaxError):  # of a file that is being imported, and has no frame
        places.append((error.filename or "", error.lineno or 0))
        said = error.msg
    for file, line in reversed(places):
        path = Path(file)
        library = {*INSTALLED} & {*path.parts} or any(path.is_relative_to(one) for one in LIBRARIES)
        if path.is_file() and not library:
            return " ".join(f"{file}:{line}: {type(error).__name__}: {said}".split()).removesuffix(":")
    return None
