"""Text of a user's where it is shown: a name moves no cursor, is no markup and no tag."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and line feed, those that turn the direction of writing, and halves of characters."""


def in_terminal(text: object) -> str:
    r"""Text in which control characters are written out, as ``\x1b``."""
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], str(text))


def say(text: object) -> None:
    """Prints a line to standard output at once."""
    print(in_terminal(text), flush=True)


def in_markdown(value: Any) -> Any:
    """Text of which no part is HTML; what is no text, or marked as safe, stays as it is."""
    return value.replace("<", "&lt;") if isinstance(value, str) and not isinstance(value, Markup) else value


class Plain(Console):
    """A console of rich that shows text as it is, without markup and control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else in_terminal(text), style, control)


@functools.cache
def shared_console() -> Plain:
    """That of all progress bars: rich shows them below each other if they have one."""
    return Plain()
