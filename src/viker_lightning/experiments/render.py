"""Tables as Markdown and LaTeX, and for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from viker_lightning.reporting.intervals import FEWEST, POOR
from viker_lightning.reporting.paired import ALPHA

from .cells import State
from .facts import COSTS_NOTE, KEY_TOKENS, KEY_TOKENS_NOTE, costs, key_tokens, measured
from .published import Source
from .table import Table

EMPTY = ""
"""What was not run stays visibly empty."""

TEX = {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "★": r"$\star$", "·": r"$\cdot$"}

APART = "≠"
"""Marks what differs from the reference."""

FIRST = ("keyword_match", "coherence", "accuracy", "rouge_l")
"""Scores in the order they are shown in where there is no room for all."""


def markdown(table: Table) -> str:
    """A Markdown page: a table a block, what it is, published numbers, and the command of every run."""
    grid = table.grid
    lines = [f"# {grid.title}", "", f"Scale `{grid.scale}`, {_seeds(grid.seeds)}. {grid.note}", ""]
    lines += [
        "Mean over seeds with its 95 % interval over people (whole people drawn, with the answers of all seeds; none "
        f"of fewer than {FEWEST} people, too narrow of fewer than {POOR}). ↓ low, ↑ high, ★ near gold is good; "
        f"**bold** is best, _underlined_ second. {table.marks}",
        "",
    ]
    for block in table.blocks:
        lines += [f"## {block}", ""] if block else []
        lines += _rows(table, block)
        lines += [asked, ""] if (asked := table.asked(block)) else []
    lines += _facts("Key tokens", KEY_TOKENS_NOTE, KEY_TOKENS, key_tokens(table), 3)
    lines += _facts("Run time and memory", COSTS_NOTE, measured(costs(table)), costs(table), 0)
    for source in table.sources:
        lines += _published(table, source)
    failed = [cell for cell in table.cells if cell.state() == State.FAILED]
    missing = [cell for cell in table.cells if cell.state() in (State.MISSING, State.STARTED)]
    if failed:
        lines += ["## Failed", "", *(f"- {cell.title}: {cell.complaint()}" for cell in failed), ""]
    if missing:
        lines += [f"{len(missing)} of {len(table.cells)} runs are not finished.", ""]
    lines += ["## Runs", "", "| run | state | seconds | peak memory MiB | command |", "|---|---|---|---|---|"]
    for cell in table.cells:
        noted = cell.note()
        memory = noted.get("peak_memory_bytes")
        shown = [cell.title, cell.state(), noted.get("seconds", EMPTY), memory // 2**20 if memory else EMPTY]
        lines.append(f"| {' | '.join(map(str, shown))} | `{cell.command}` |")
    if made := table.made_with():
        lines += ["", "## Made with", "", *(f"- {fact}: {', '.join(values)}" for fact, values in made.items())]
    return "\n".join(lines) + "\n"


def _people(table: Table, block: str) -> str:
    return ", ".join(f"{split} {count}" for split, count in table.people(block).items())


def summary(table: Table, width: int) -> list[RichTable]:
    """The numbers without intervals, for a terminal: a table a block, with the columns there is room for, one at least.

    Args:
        table: of a grid.
        width: of the terminal, in characters; what is told, coherence and choices come first.
    """
    names = [table.label(block, name) for block in table.blocks for name in table.grid.rows]
    left = width - 2 - max(map(len, names))  # the ends of the table
    kept: list[Any] = []
    for column in sorted(table.columns, key=lambda c: FIRST.index(c[1]) if c[1] in FIRST else len(FIRST)):
        left -= 2 + max(len(column[0]), len(column[2]), len("0.00 ≠"))
        kept += [column] if left >= 0 or not kept else []
    columns = [column for column in table.columns if column in kept]
    found = []
    for block in table.blocks:
        title = ": ".join(part for part in (block or table.grid.title, f"{_people(table, block)} people") if part)
        one = RichTable(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        one.add_column("", no_wrap=True)
        for split, _, heading in columns:
            one.add_column(f"{split}\n{heading}", justify="right", no_wrap=True)
        for name in table.grid.rows:
            values = [table.value(block, name, split, score) for split, score, _ in columns]
            one.add_row(table.label(block, name), *map(_shown, values))
        found.append(one)
    return found


def legend(table: Table) -> str:
    """What the signs of :func:`summary` mean, in a line."""
    test = f"{APART} differs from {table.grid.reference} (exact sign-flip test, Holm, {100 * ALPHA:g} %)"
    return f"★ near gold is good; bold best, underlined second of the methods; {test}"


def _shown(value: dict[str, Any] | None) -> Text:
    if value is None:
        return Text("-")
    style = {"best": "bold", "second": "underline"}.get(value["rank"], "")
    return Text.assemble((f"{value['mean']:.2f}", style), f" {APART}" if _apart(value) else "  ")


def _apart(value: dict[str, Any]) -> bool:
    """Whether a cell of the table differs from the reference."""
    return value["p"] is not None and value["p"] <= ALPHA


def _rows(table: Table, block: str) -> list[str]:
    columns = table.columns
    lines = ["| | " + " | ".join(f"{split} {heading}" for split, _, heading in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for name in table.grid.rows:
        cells = [_cell(table.value(block, name, split, score)) for split, score, _ in columns]
        lines.append(f"| {table.label(block, name)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return EMPTY
    mark = {"best": "**", "second": "_"}.get(value["rank"], "")
    text = f"{mark}{value['mean']:.2f}{mark}" + f" {APART}" * _apart(value)
    return text if value["low"] is None else f"{text} [{value['low']:.2f}, {value['high']:.2f}]"


def _facts(title: str, note: str, headings: dict[str, str], rows: list[dict[str, Any]], decimals: int) -> list[str]:
    """A section with a row a row of the table; nothing if there are no data."""
    if not rows:
        return []
    several = len({row["block"] for row in rows}) > 1
    lines = [f"## {title}", "", note, "", "| | runs | " + " | ".join(headings.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(headings))
    for row in rows:
        name = f"{row['block']}, {row['row']}" if several else row["row"]
        cells = [f"{row[key]:.{decimals}f}" if key in row else EMPTY for key in headings]
        lines.append(f"| {name} | {row['runs']} | {' | '.join(cells)} |")
    return [*lines, ""]


def _published(table: Table, source: Source) -> list[str]:
    """Published numbers, with the difference to ours where they compare."""
    said = "second-hand" if source.second_hand else "read in the paper"
    lines = [f"## Published: {source.source} ({said})", "", f"{source.setting} {table.comparable(source)}", ""]
    for block, rows in source.blocks.items():
        lines += [f"| {block} | " + " | ".join(source.columns) + " |", "|---|" + "---|" * len(source.columns)]
        for row in rows:
            cells = [
                _difference(source.value(block, row, column), table.difference(source, block, row, column))
                for column in source.columns
            ]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _difference(theirs: float | None, difference: float | None) -> str:
    if theirs is None:
        return EMPTY
    return f"{theirs:.3f}" if difference is None else f"{theirs:.3f} (ours {difference:+.3f})"


def latex(table: Table) -> str:
    """A LaTeX table; needs the package ``booktabs``."""
    columns = table.columns
    splits = list(table.grid.columns)
    spans = " & ".join(rf"\multicolumn{{{len(table.grid.columns[s])}}}{{c}}{{{s.capitalize()}}}" for s in splits)
    heads = " & ".join(_tex(heading) for _, _, heading in columns)
    lines = [
        f"% {table.grid.title}; scale {table.grid.scale}, {_seeds(table.grid.seeds)}",
        f"% {table.grid.note}",
        *(f"% {block or 'people'}: {asked}" for block in table.blocks if (asked := table.asked(block))),
        rf"% bold: best method; underlined: second; $\star$: near gold is good. {table.marks}",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        rf" & {spans} \\",
        rf" & {heads} \\",
    ]
    for block in table.blocks:
        lines.append(r"\midrule")
        if block:
            lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{{_tex(block)}}} \\")
        for name in table.grid.rows:
            cells = [_tex_cell(table.value(block, name, split, score)) for split, score, _ in columns]
            lines.append(rf"{_tex(table.label(block, name))} & {' & '.join(cells)} \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    for source in table.sources:
        lines += _tex_published(table, source)
    return "\n".join(lines) + "\n"


def _tex_published(table: Table, source: Source) -> list[str]:
    """Published numbers, with the difference to ours where they compare, as a table of their own."""
    said = "second-hand" if source.second_hand else "read in the paper"
    lines = ["", f"% Published: {source.source} ({said}). {table.comparable(source)}"]
    lines += [rf"\begin{{tabular}}{{l{'c' * len(source.columns)}}}", r"\toprule"]
    lines.append(rf" & {' & '.join(map(_tex, source.columns))} \\")
    for block, rows in source.blocks.items():
        lines += [r"\midrule", rf"\multicolumn{{{len(source.columns) + 1}}}{{l}}{{{_tex(block)}}} \\"]
        for row in rows:
            pairs = [(source.value(block, row, c), table.difference(source, block, row, c)) for c in source.columns]
            lines.append(rf"{_tex(row)} & {' & '.join(_difference(*pair) for pair in pairs)} \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _tex_cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return EMPTY
    wrap: dict[str, Callable[[str], str]] = {"best": r"\textbf{{{}}}".format, "second": r"\underline{{{}}}".format}
    text = wrap.get(value["rank"], str)(f"{value['mean']:.2f}") + r"$^{\neq}$" * _apart(value)
    if value["low"] is None:
        return text
    return rf"{text} {{\scriptsize [{value['low']:.2f}, {value['high']:.2f}]}}"


def _tex(text: str) -> str:
    for sign in "&%$#_":
        text = text.replace(sign, "\\" + sign)
    for sign, command in TEX.items():
        text = text.replace(sign, command)
    return text


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"
