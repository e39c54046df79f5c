"""What is said of a method, from its class: its docstring, and what it declares.

A docstring begins with name and paper in a sentence; then come the formula in backquotes, ``Followed: <repository>
<file> <lines>.``, ``Differs: ...`` and whatever else is to be said, and arguments in the end.
"""

import inspect
import re
from typing import Any

from .around import Around
from .base import Method
from .gradient_difference import GradientDifference


def parts(kind: type) -> dict[str, list[str]]:
    """Paragraphs of a docstring, each in one line: ``name``, ``formula``, ``followed``, ``differs`` and ``more``."""
    text = re.split(r"^(?:Args|Attributes):$", inspect.getdoc(kind) or "", maxsplit=1, flags=re.MULTILINE)[0]
    found: dict[str, list[str]] = {key: [] for key in ("name", "formula", "followed", "differs", "more")}
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        said = _plain(paragraph)
        begun = re.match("(Followed|Differs): ", said)
        if not number:
            key = "name"
        elif begun:
            key = begun[1].lower()
        else:
            key = "formula" if said.startswith("`") and not found["formula"] else "more"
        found[key].append(said[begun.end() :] if begun else said)
    return found


def by_default(kind: type[Method], inside: Method | None = None, **arguments: Any) -> Method:
    """A method with default arguments, but for some; one around another is around that, or gradient difference."""
    parameters = inspect.signature(kind).parameters
    missing = "method" in parameters and parameters["method"].default is inspect.Parameter.empty
    return kind(**({"method": inside or GradientDifference()} if missing else {}), **arguments)


def _plain(paragraph: str) -> str:
    """One line, with code as Markdown has it."""
    named = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"``\1``", " ".join(paragraph.split()))
    return named.replace("``", "`")


def arxiv_numbers(text: str) -> list[str]:
    """The papers that a text names."""
    return re.findall(r"arXiv[: ](\d{4}\.\d{5})", text)


def needs(method: Method) -> list[str]:
    """What a method asks for beside the forget questions; one around another, what it asks for besides."""
    inside = _declared(method.method) if isinstance(method, Around) else []
    return [what for what in _declared(method) if what not in inside]


def _declared(method: Method) -> list[str]:
    asked, streams, pictures = method.references, method.streams, method.pictures_needed
    found = {
        "retain data": "retain" in streams,
        "other answers": "alternative" in streams,
        "frozen model": "own" in asked,
        "irrelevant images": "irrelevant" in asked,
        "noised image": "noised" in asked,
        "doubles": "double" in asked,
        "strangers": "strangers" in streams,
        "gold": "gold" in asked,
        "hidden states": bool(method.layers),
        "own answers": "strangers" in pictures and getattr(streams.get("strangers"), "rehearsal", True),
        "a whole step at once": method.whole_steps,
        "no steps: edits weights": bool(not method.takes_steps and method.needs),
        "an instruction": not method.needs,
    }
    return [what for what, there in found.items() if there]
