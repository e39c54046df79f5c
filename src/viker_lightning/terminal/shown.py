"""Text of a user's where it is shown: a name moves no cursor, is no markup and no tag."""

import functools
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

from viker_lightning.errors import in_terminal


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
