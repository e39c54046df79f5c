"""The shown table, and what writes it: as Markdown and in a terminal; ``section_table`` of the templates is for pages.

Text between backticks is code wherever it is shown.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from viker_lightning.terminal.shown import in_markdown

APART = "≠"
"""Marks what differs from the reference."""

MARKDOWN = {"best": "**", "second": "_", "": ""}
STYLES = {"best": "bold", "second": "underline", "": ""}


@dataclass(frozen=True)
class Cell:
    """A cell of a shown table.

    Attributes:
        text: empty where there is nothing.
        mark: ``best`` or ``second`` of its column, or nothing.
        sign: stands behind the text, e.g. :data:`APART`.
        interval: stands behind both; a terminal has no room for it.
        bar: length of a bar below the text on a page, 0 to 1; 0 is none.
    """

    text: str = ""
    mark: str = ""
    sign: str = ""
    interval: str = ""
    bar: float = 0.0


@dataclass(frozen=True)
class Section:
    """A table with its heading.

    Attributes:
        title: names it; empty where it belongs to the section before.
        columns: headings; the first is that of the names. A section without columns is its note.
        rows: a name and cells each; a text is a cell without marks.
        note: stands above the table and says what its numbers are.
        below: sentences below it.
        words: columns of words: they are set left, and a table that has any is folded where there is little room.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell | str]] = ()
    note: str = ""
    below: Sequence[str] = ()
    words: Sequence[str] = ()
    cells: list[list[Cell]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        made = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]
        object.__setattr__(self, "cells", made)


def escaped(text: str) -> str:
    """Text of which nothing but code may look like HTML.

    Code stands between two backticks of one line. Where any line has an odd number of them, or two beside each other,
    nothing is taken for code.
    """
    unclear = "``" in text or "\\`" in text or any(line.count("`") % 2 for line in text.split("\n"))
    parts = [text] if unclear else text.split("`")
    parts[::2] = map(in_markdown, parts[::2])
    return "`".join(parts)


def markdown(parts: Iterable[Section | str], escape: Callable[[str], str] = escaped) -> str:
    """A Markdown page.

    Args:
        parts: sections and paragraphs, in order; empty ones are left out.
        escape: what is done to every text; nothing is to be done for a terminal.
    """
    blocks: list[str] = []
    for part in parts:
        if isinstance(part, str):
            blocks.append(escape(part))
        else:
            blocks += [escape(f"## {part.title}" if part.title else ""), escape(part.note)]
            blocks += [_markdown_table(part, escape), *map(escape, part.below)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _markdown_table(section: Section, escape: Callable[[str], str]) -> str:
    if not section.columns:
        return ""
    first, *others = map(escape, section.columns)
    lines = [f"| {first}".rstrip() + f" | {' | '.join(others)} |", "|---|" + "---|" * len(others)]
    for row in section.cells:
        lines.append(f"| {' | '.join(_markdown_cell(cell, escape) for cell in row)} |")
    return "\n".join(lines)


def _markdown_cell(cell: Cell, escape: Callable[[str], str]) -> str:
    mark = MARKDOWN[cell.mark]
    return " ".join(filter(None, (f"{mark}{escape(cell.text)}{mark}", cell.sign, cell.interval)))


def by_importance(scores: Sequence[str], first: Sequence[str]) -> list[int]:
    """Places of the columns that show these scores, 1 for the first: those of some scores come first, in that order."""
    rank = {score: i for i, score in enumerate(first)}
    return sorted(range(1, len(scores) + 1), key=lambda i: rank.get(scores[i - 1], len(rank)))


def terminal(section: Section, width: int = 0, order: Sequence[int] = ()) -> Table:
    """A section in a terminal, without its note and intervals; ``-`` is nothing.

    Args:
        section: a line break in a heading stays one.
        width: of the terminal, in characters: columns there is no room for are left out, but for one; 0 is any.
        order: columns behind the names, the most important first; by default as they stand.
    """
    signs = any(cell.sign for row in section.cells for cell in row)
    shown = [
        [Text(head.text, STYLES[head.mark]), *(_terminal_cell(cell, signs) for cell in cells)]
        for head, *cells in section.cells
    ]
    lengths = [
        max(map(len, (*heading.split("\n"), *(row[i].plain for row in shown if i < len(row)))))
        for i, heading in enumerate(section.columns)
    ]
    left = width - 2 - lengths[0]  # the ends of the table
    kept: list[int] = []
    for i in order or range(1, len(lengths)):
        left -= 2 + lengths[i]
        kept += [i] if not width or left >= 0 or not kept else []
    table = Table(title=section.title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(section.columns[0], no_wrap=True)
    for i in sorted(kept):
        side: Literal["left", "right"] = "left" if section.columns[i] in section.words else "right"
        table.add_column(section.columns[i], justify=side, no_wrap=not section.words, overflow="fold")
    for row in shown:
        table.add_row(*(row[i] for i in [0, *sorted(kept)] if i < len(row)))
    return table


def _terminal_cell(cell: Cell, signs: bool) -> Text:
    """A cell, with room for a sign behind it where any has one."""
    text = Text.assemble((cell.text or "-", STYLES[cell.mark]))
    return text.append(f" {cell.sign or ' '}" if signs else "")
