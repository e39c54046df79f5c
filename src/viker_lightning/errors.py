"""Errors a user can cause and mend."""

import re
from typing import Any

EXTRAS = {"TensorBoardLogger": "; pip install -e '.[tensorboard]' in the repository"}
"""What to do where a class of others wants a package that only an extra brings."""

_UNMADE = re.compile(r"( *)(?:- )?Problem with given class_path '([^']+)':\n((?:\1 {2,}.*\n?)+)")


class UserError(Exception):
    """Something is not as it must be; the message is one line that says where, what was found and what to do.

    The command line prints the message alone and exits with 1.
    """


class DataError(UserError):
    """Something is wrong with the data; the message names file, row and column."""


def check_least(where: str, least: float, **options: float | None) -> None:
    """Refuses numbers that are too small, or none.

    Args:
        where: what has these options, e.g. ``model``.
        least: the smallest good value.
        options: values by name; ``None`` is always good.

    Raises:
        UserError: naming the first wrong one.
    """
    for name, value in options.items():
        if value is not None and not value >= least:  # nan is none
            raise UserError(f"{where}.{name}: found {value}, expected at least {least}")


def unmade(error: BaseException) -> str | None:
    """Which class of a config could not be made, and why.

    Args:
        error: what came out of the parser, which wraps what a class says in many lines of its own.

    Returns:
        One line, e.g. that a logger's package is missing; ``None`` if the error speaks of no class.
    """
    found = _UNMADE.search(str(error)) if isinstance(error, ValueError) else None
    if found is None:
        return None
    name, why = found[2], " ".join(found[3].split())
    return f"{name}: {why}{EXTRAS.get(name.rpartition('.')[2], '')}"


def short(value: Any) -> str:
    """How a wrong value is shown in a message: its beginning, in one line."""
    try:
        shown = repr(value[:60] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__} too large to show"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
