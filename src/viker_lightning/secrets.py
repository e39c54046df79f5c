"""Keeping tokens and passwords out of everything a run writes."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

HIDDEN = "***"

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

_LOGINS = re.compile(r"(\w:/{1,2})[^\s/@]+@")
"""``user:password@`` in a URL, also where a path made one slash of two."""


def hide(text: str) -> str:
    """Text with everything that looks like a token or password replaced by ``***``.

    Besides known shapes, this is the value of every environment variable that is called a token, key or password.
    """
    known = [value for name, value in os.environ.items() if len(value) >= 8 and _NAMES.search(name)]
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, _LOGINS.sub(rf"\1{HIDDEN}@", text))


def hide_in(value: Any, secret: bool = False) -> Any:
    """The same in everything a dictionary or list holds; text under a name like ``api_key`` goes as a whole.

    Args:
        value: what YAML or JSON can hold.
        secret: whether the name it stands under is that of a secret.
    """
    if isinstance(value, dict):
        return {name: hide_in(v, secret or bool(_NAMES.search(str(name)))) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(v, secret) for v in value]
    if isinstance(value, str):
        return HIDDEN if secret and value else hide(value)
    return value


class HidingFormatter(logging.Formatter):
    """Writes log messages and tracebacks without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """As usual, hidden."""
        return hide(super().format(record))
