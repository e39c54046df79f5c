"""Errors a user can cause and fix, and how text of theirs is shown in a terminal."""

import re
from typing import Any

_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and line feed, those that turn the direction of writing, and halves of characters."""


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


def short(value: Any) -> str:
    """How a wrong value is shown in a message: its beginning, in one line."""
    try:
        shown = repr(value[:60] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__} too large to show"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def in_terminal(text: object) -> str:
    r"""Text in which control characters are written out, as ``\x1b``: a name of a user's moves no cursor."""
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], str(text))


def say(text: object) -> None:
    """Prints a line to standard output at once."""
    print(in_terminal(text), flush=True)
