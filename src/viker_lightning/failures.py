"""How a run that fails says so: errors a user can fix, in one line that says what to do."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from viker_lightning.errors import UserError
from viker_lightning.secrets import hide

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

_UNMADE = re.compile(r"( *)(?:- )?Problem with given class_path '([^']+)':\n((?:\1 {2,}.*\n?)+)")


def one_line(error: Exception, then: str = RESUME) -> str | None:
    """What a user can fix, in one line; ``None`` if it is not for a user to fix.

    Args:
        error: why a program ends.
        then: how it goes on when that is fixed.
    """
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return f"{error}; {what_to_do(error, then)}"
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
    while cause is not None and not isinstance(cause, UserError):  # the parser wraps what a class refuses
        cause = cause.__cause__ or cause.__context__
    return str(cause) if cause is not None else unmade(error)


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
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            sys.exit(128 + signal.SIGPIPE)
        if (line := one_line(error, "give the same command again")) is None:
            raise
        sys.exit(hide(f"error: {line}"))
    finally:
        signal.signal(signal.SIGTERM, former)


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
    file, forbidden = error.filename, error.errno in (errno.EACCES, errno.EPERM)
    if forbidden and file is not None and os.path.exists(file) and not os.access(file, os.R_OK):
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
