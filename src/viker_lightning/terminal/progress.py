"""Progress of whatever takes a while: a bar in a terminal, a line now and then in a pipe or a log, nothing in CI."""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from typing_extensions import override

from .shown import shared_console

Item = TypeVar("Item")


EVERY = 5.0
"""Seconds between two lines where there is no terminal, to begin with."""

RARER = 0.03
"""Later, the share of all the time gone that passes between two: a day leaves a few hundred lines."""

LINE = re.compile(r"^.+ \d+/(\d+|\?)(, [\d:]+ left)?$")
"""What :class:`Bar` prints there: ``training 120/450, 0:41 left``."""

TAIL = 4096
"""Bytes at the end of a log in which its last line is looked for."""


def silent() -> bool:
    """Whether nothing is said of progress at all: ``CI`` is set, or this is not the first process."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no") or bool(getattr(rank_zero_only, "rank", 0))


def quiet() -> bool:
    """Whether no bar is drawn: standard output is no terminal, or nothing is said at all."""
    return silent() or not sys.stdout.isatty()


class Pace:
    """When another line is due where there is no terminal: after some seconds, then ever more rarely."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    @property
    def gone(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def due(self) -> bool:
        """Whether a line is due; if so, the next one is later."""
        now = time.monotonic()
        if now - self._last < max(EVERY, RARER * (now - self._started)):
            return False
        self._last = now
        return True


def clock(seconds: float) -> str:
    """A duration as people read it: ``0:41``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def last_stage(log: Path) -> str:
    """What a run that writes into a file said last of how far it is; empty if nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:  # it has not begun
        return ""
    return next((line for line in reversed(lines) if LINE.match(line)), "")


class Bar:
    """How far something is: steps done of all, how many things pass a second, how long it still takes.

    Where there is no terminal, what takes longer than a few seconds says so in a line now and then (:class:`Pace`). The
    time left is said from the second step on: before the first one things are made ready.

    Several may run at once; they are shown below each other, the outermost first. A bar is started and stopped as a
    context manager, or by :meth:`start` and :meth:`stop`, the last one started first.

    Args:
        title: what is going on.
        total: steps; ``None`` if nobody knows.
        unit: what is counted a second, as a plural.
        done: steps that were done earlier.
        shown: whether it is shown at all, if not :func:`silent`.
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
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(16),
            _Done(),
            _Speed(unit),
            TimeRemainingColumn(),
        )
        drawn = shown and (console is not None or not quiet())
        self._display = _Display(
            *columns, TextColumn("left"), console=console or shared_console(), transient=True, disable=not drawn
        )
        self._task = self._display.add_task(title, total=total, completed=done, steps=0, counted=0)
        self._lines = _Lines(title, total, done) if shown and not drawn and not silent() else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Shows it."""
        self._display.start()
        self._display.refresh()  # within another one it would be drawn some time later, when it may be over

    def stop(self) -> None:
        """Takes it away; a second time does nothing."""
        self._display.stop()
        if self._lines:
            self._lines.stop()
            self._lines = None

    def advance(self, steps: int = 1, counted: int | None = None) -> None:
        """So many steps were done.

        Args:
            steps: how many.
            counted: how many things they were; by default one a step.
        """
        fields = self._display.tasks[0].fields
        counted = fields["counted"] + (steps if counted is None else counted)
        self._display.update(self._task, advance=steps, steps=fields["steps"] + steps, counted=counted)
        if self._lines:
            self._lines.advance(steps)

    def say(self, note: str) -> None:
        """Puts a line below the bar."""
        self._display.note = note


class _Lines:
    """A bar where there is no terminal: a line now and then, and a last one if there was a first."""

    def __init__(self, title: str, total: int | None, done: int) -> None:
        self._title, self._total, self._done = title, total, done
        self._pace, self._said = Pace(), -1
        self._first: tuple[float, int] | None = None  # what is made ready before the first step says nothing of others

    def advance(self, steps: int) -> None:
        self._done += steps
        self._first = self._first or (self._pace.gone, self._done)
        if self._pace.due():
            self._say()

    def stop(self) -> None:
        """The last line, unless it would be the only one or was said already."""
        if self._said not in (-1, self._done):
            self._say()

    def _say(self) -> None:
        self._said = self._done
        line = f"{self._title} {self._done}/{'?' if self._total is None else self._total}"
        gone, first = self._first or (0.0, self._done)
        if self._total is not None and first < self._done < self._total:
            a_step = (self._pace.gone - gone) / (self._done - first)
            line += f", {clock(a_step * (self._total - self._done))} left"
        print(line, flush=True)


def track(items: Iterable[Item], title: str, total: int, unit: str, shown: bool = True) -> Iterator[Item]:
    """Goes through so many items, one a step, showing how far as :class:`Bar` does."""
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
