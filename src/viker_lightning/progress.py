"""Progress in a terminal, one line for whatever takes a while; nothing at all where nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich import get_console
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from typing_extensions import override

Item = TypeVar("Item")

NO = ("", "0", "false", "no")


def quiet() -> bool:
    """Whether no progress is shown: standard output is no terminal, ``CI`` is set, or this is not the first process."""
    in_ci = os.environ.get("CI", "").lower() not in NO
    return in_ci or not sys.stdout.isatty() or bool(getattr(rank_zero_only, "rank", 0))


class Bar:
    """How far something is: steps done of all, how many things pass a second, how long it still takes.

    Several may run at once; they are shown below each other, the outermost first. A bar is started and stopped as a
    context manager, or by :meth:`start` and :meth:`stop`, the last one started first.

    Args:
        title: what is going on.
        total: steps; ``None`` if nobody knows.
        unit: what is counted a second, as a plural.
        done: steps that were done earlier.
        shown: whether it is shown at all, if not :func:`quiet`.
        console: where to; by default standard output.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str = "steps",
        done: int = 0,
        shown: bool = True,
        console: Console | None = None,
    ) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(16), _Done(), _Speed(unit), TimeRemainingColumn())
        shown = shown and (console is not None or not quiet())
        self._display = _Display(
            *columns, TextColumn("left"), console=console or get_console(), transient=True, disable=not shown
        )
        self._task = self._display.add_task(title, total=total, completed=done, steps=0, counted=0)

    def __enter__(self) -> Bar:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Shows it."""
        self._display.start()

    def stop(self) -> None:
        """Takes it away; a second time does nothing."""
        self._display.stop()

    def advance(self, steps: int = 1, counted: int | None = None) -> None:
        """So many steps were done.

        Args:
            steps: how many.
            counted: how many things they were; by default one a step.
        """
        fields = self._display.tasks[0].fields
        counted = fields["counted"] + (steps if counted is None else counted)
        self._display.update(self._task, advance=steps, steps=fields["steps"] + steps, counted=counted)

    def say(self, note: str) -> None:
        """Puts a line below the bar."""
        self._display.note = note


def track(items: Iterable[Item], title: str, total: int, unit: str, shown: bool = True) -> Iterator[Item]:
    """Goes through items, showing how far.

    Args:
        items: what to go through, one a step.
        title: what is going on.
        total: how many there are.
        unit: what they are, as a plural.
        shown: as of :class:`Bar`.
    """
    with Bar(title, total, unit, shown=shown) as bar:
        for item in items:
            yield item
            bar.advance()


class _Display(Progress):
    """A bar with a line of text below it."""

    note = ""

    @override
    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Text(self.note, style="dim", no_wrap=True, overflow="ellipsis")


class _Done(ProgressColumn):
    """Steps done of all, as in 3/70."""

    @override
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{'?' if task.total is None else int(task.total)}")


class _Speed(ProgressColumn):
    """Things a second, over the last half minute; none before the second step."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    @override
    def render(self, task: Task) -> Text:
        steps = task.fields["steps"]
        if not task.speed or not steps:
            return Text(f"- {self.unit}/s")
        return Text(f"{task.speed * task.fields['counted'] / steps:.1f} {self.unit}/s")
