"""Keeping tokens and passwords out of everything a run writes."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_exception
from typing import Any

from typing_extensions import override

from viker_lightning.errors import in_terminal

HIDDEN = "***"

LONGEST = 80
"""Characters of a name or value that are repeated in a message."""

TITLES = ("name", "notes", "tags", "group", "job_type", "config")
"""Arguments of loggers that are shown to people."""

WANDB_TITLES = ("WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE")
"""Environment variables of W&B whose values are shown to people."""

_NAMES = re.compile(
    r"token(?!i[sz])|api_?key|access_?key|private_?key|passw|passphrase|secret|credential|authorization", re.I
)
"""Names of options and environment variables whose text is nobody's business (a tokenizer's is)."""

_SHAPES = re.compile(
    r"hf_\w{16,}|wandb_v\d+_\w{16,}|gh[oprsu]_\w{16,}|github_pat_\w{16,}|\bsk-[\w-]{16,}|\bAKIA[0-9A-Z]{16}"
    r"|(?<=bearer )[\w.~+/=-]{6,}|(?<=basic )[\w+/=-]{6,}"
    r"|(?<=token=)[^\s&'\"]{6,}|(?<=api_key=)[^\s&'\"]{6,}|(?<=password=)[^\s&'\"]+|(?<=secret=)[^\s&'\"]+",
    re.I,
)
"""What tokens of Hugging Face, W&B, GitHub, OpenAI and AWS look like, and those in queries and headers."""

_LOGINS = re.compile(r"(\w:/{1,2})[^\s/]+@")
"""``user:password@`` in a URL, also where a path made one slash of two; a password may have an ``@`` of its own."""


def hide(text: str) -> str:
    """Text with everything that looks like a token or password replaced by ``***``.

    Besides known shapes, this is the value of every environment variable that is called a token, key or password.
    """
    known = [value for name, value in os.environ.items() if len(value) >= 8 and _NAMES.search(name)]
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, _LOGINS.sub(rf"\1{HIDDEN}@", text))


def hide_in(value: Any, secret: bool = False) -> Any:
    """A value with the secrets hidden in everything it holds; text under a name like ``api_key`` goes as a whole.

    ``secret`` says that the value itself stands under such a name.
    """
    if isinstance(value, dict):
        return {name: hide_in(v, secret or bool(_NAMES.search(str(name)))) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(v, secret) for v in value]
    if isinstance(value, str):
        return HIDDEN if secret and value else hide(value)
    return value


def name_to_show(name: str) -> str:
    """A name as a message may repeat it: a token may stand where one should."""
    name = hide(name)
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def value_to_show(option: str, value: str) -> str:
    """The value of an option as a message may repeat it."""
    shown = str(hide_in({option.rpartition(".")[2]: value}).popitem()[1])
    return repr(shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}...")


def hide_from_loggers(loggers: Any) -> None:
    """Takes secrets out of what loggers show to people: name, notes, tags and so on, which W&B keeps in its files.

    What ``trainer.logger`` is in a config is changed in place, as is what W&B finds in the environment.
    """
    for name in WANDB_TITLES:
        if name in os.environ:
            os.environ[name] = hide(os.environ[name])
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        for part in ("init_args", "dict_kwargs") if hasattr(logger, "get") else ():
            arguments = logger.get(part) or {}
            for word in TITLES:
                if arguments.get(word) is not None:
                    arguments[word] = hide_in(arguments[word])


_OPTION = re.compile(r"(?<![\w-])(--[^\s=]+)(=|\s+(?!-))(\"[^\"]*\"|'[^']*'|\S+)")
_TEXT = r"""(?:[rbfu]{0,2}(?:\'{3}.*?\'{3}|"{3}.*?"{3}|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"))"""
_QUOTED = re.compile(
    # a name, its type if one is given, and the text or texts that it is set to
    rf"""((['"]?)[\w.]+\2\]?(?:[ ]*:[ ]*[\w.|\[\], ]+?(?=[ ]*=))?)([ ]*[:=][ ]*(?:\(\s*)?){_TEXT}(?:\s*{_TEXT})*""",
    re.I | re.S,
)
_NESTED = re.compile(r"""(NestedArg\(key='[^']*', val=)(?:'[^']*'|"[^"]*"|[^)]*)""")  # jsonargparse: of no known option
_UNKNOWN = re.compile(r"(unrecognized arguments?: )(.*)", re.I | re.S)


def hide_arguments(text: str) -> str:
    """What a parser says of options, without secrets: it repeats what was typed.

    Besides what :func:`hide` finds, the value of an option or key that is called a token, key or password goes as a
    whole, and so does any value of an option that nobody knows: its name may be that of a secret, mistyped.
    """

    def named(found: re.Match[str]) -> str:
        secret = _NAMES.search(found[1]) and not re.fullmatch(r"[\d.e+-]+", found[3])  # --x.max_tokens=4096
        return f"{found[1]}{found[2]}{HIDDEN}" if secret else found[0]

    def unknown(found: re.Match[str]) -> str:
        words = found[2].split()
        first = next((i for i, word in enumerate(words) if word[0] == "-"), len(words))  # before it nothing is a value
        parts = [word.partition("=") for word in words[first:]]
        rest = [f"{n}{e}{HIDDEN if e else ''}" if n[0] == "-" else HIDDEN for n, e, _ in parts]
        return found[1] + " ".join([*words[:first], *rest])

    text = _NESTED.sub(rf"\1{HIDDEN}", hide_quoted(_OPTION.sub(named, text)))
    return hide(_UNKNOWN.sub(unknown, text))


def hide_quoted(text: str) -> str:
    """Source or settings in which text that stands in quotation marks under a name like ``api_key`` goes as a whole.

    That is all: :func:`hide` finds what looks like a secret under any name.
    """

    def quoted(found: re.Match[str]) -> str:
        return f"{found[1]}{found[3]}{HIDDEN}" if _NAMES.search(found[1]) else found[0]

    return _QUOTED.sub(quoted, text)


@contextmanager
def hidden_warnings() -> Iterator[None]:
    """Has Python's warnings written without secrets for a while."""
    plain = warnings.formatwarning

    def hiding(*arguments: Any, **more: Any) -> str:
        return in_terminal(hide(plain(*arguments, **more)))

    warnings.formatwarning = hiding
    try:
        yield
    finally:
        warnings.formatwarning = plain


class HidingFormatter(logging.Formatter):
    """Writes log messages and tracebacks without secrets."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))


def hide_in_tracebacks() -> None:
    """Has the traceback of what ends this process written without secrets."""
    sys.excepthook = lambda *found: print(hide("".join(format_exception(*found))), file=sys.stderr, end="")
