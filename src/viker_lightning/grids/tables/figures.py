"""Figures of a table, as SVG and PDF: trade-off of methods, sweeps, cost, key tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from viker_lightning.metrics import FORGOTTEN
from viker_lightning.reporting.sequence import TOGETHER

from .measurements import COSTS, KEY_TOKENS, cost_headings, costs, key_tokens, row_names
from .sequences import lines_of
from .table import Table
from .worlds import worlds_record
from .worlds_page import MAIN, main_measures

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "viker-lightning",
}
MARKERS = "osD^vPXphd"
COLOURS = [f"C{i}" for i in range(10)]


def draw_figures(table: Table, folder: Path) -> list[Path]:
    """Draws what a table has data for.

    Args:
        table: however far its runs are.
        folder: where the files go.

    Returns:
        The SVG files; each has a PDF beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Figure | None] = {}
    with matplotlib.rc_context(STYLE):
        if table.grid.worlds:
            found = worlds_record(table)
            drawn[table.stem] = worlds_figure(found)
            drawn[f"{table.stem}-trade-off"] = worlds_trade_off_figure(found)
        elif table.grid.figure:
            drawn[table.stem] = sweep_figure(table)
        else:
            drawn[table.stem] = sequence_figure(table) if table.grid.sequence else None
            drawn[f"{table.stem}-trade-off"] = trade_off_figure(table)
        drawn[f"{table.stem}-cost"] = cost_figure(table)
        drawn[f"{table.stem}-key-tokens"] = key_token_figure(table)
        files = []
        for stem, figure in drawn.items():
            if figure is not None:
                files.append(folder / f"{stem}.svg")
                figure.savefig(files[-1], metadata={"Date": None})
                figure.savefig(files[-1].with_suffix(".pdf"), metadata={"CreationDate": None})
    return files


def trade_off_figure(table: Table) -> Figure | None:
    """Keywords leaked about the people to forget, against those known about the retained; gold is a star."""
    blocks = [block for block in table.blocks if table.contenders[block]]
    if not blocks:
        return None
    figure, panels = _panels(len(blocks))
    for block, axes in zip(blocks, panels, strict=True):
        for i, (name, kind) in enumerate(table.rows.items()):
            x, y = (table.value(block, name, split, "keyword_match") for split in ("test", "retain"))
            if x is None or y is None:
                continue
            marker, size = {"gold": ("*", 13), "floor": ("*", 8)}.get(kind, (MARKERS[i % len(MARKERS)], 6))
            bars = axes.errorbar(x["mean"], y["mean"], _error(y), _error(x), marker, elinewidth=0.6, markersize=size)
            bars.set_label(name)
        axes.set(title=block, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="test: keyword match (near gold is good)")
    if not any(axes.containers for axes in panels):
        return None
    panels[0].set_ylabel("retain: keyword match (high is good)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def worlds_figure(
    record: Mapping[str, Any], colours: Sequence[str] = COLOURS, ink: str = "black", muted: str = "gray"
) -> Figure | None:
    """Every main score in every world: a dot a world and row, a star for gold, a bar for the mean over worlds.

    Args:
        record: as of :func:`~viker_lightning.grids.tables.worlds.worlds_record`.
        colours: of the methods.
        ink: colour of gold.
        muted: colour of vanilla and of the second gold model.

    Returns:
        The figure; ``None`` if nothing was run.
    """
    measures, names = main_measures(record), [*record["means"]]
    if not measures:
        return None
    across = min(3, len(measures))
    down = -(-len(measures) // across)
    size = (1.2 + 2.6 * across, down * (1 + 0.24 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False, sharey=True).flat)
    for axes, one in zip(panels, measures, strict=False):
        column = one["column"]
        for place, name in enumerate(names):
            colour, marker, size_of = _look(record, name, colours, ink, muted)
            values = [record["values"][world].get(name, {}).get(column) for world in record["worlds"]]
            last = max(1, len(values) - 1)
            dots = [(x, place + 0.6 * (i / last - 0.5)) for i, x in enumerate(values) if x is not None]
            if dots:
                axes.plot(*zip(*dots, strict=True), marker, color=colour, markersize=size_of, alpha=0.7)
                mean = record["means"][name][column]["value"]
                axes.plot([mean, mean], [place - 0.4, place + 0.4], color=colour, linewidth=1.6)
        held = record["second_gold" if one["kind"] == "floor" else "gold"]
        if (mean := record["means"].get(held, {}).get(column, {}).get("value")) is not None:
            axes.axvline(mean, color=ink, linewidth=0.7, linestyle=":")
        if one["kind"] != "floor":  # a divergence has no upper end
            axes.set_xlim(min(-0.03, axes.get_xlim()[0]), max(1.03, axes.get_xlim()[1]))
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{one['heading']} {one['sign']}", fontsize="medium")
    panels[0].invert_yaxis()  # shared by all
    for axes in panels[len(measures) :]:
        axes.set_visible(False)
    return figure


def worlds_trade_off_figure(record: Mapping[str, Any]) -> Figure | None:
    """Keywords leaked about the people to forget, against those known about the retained: worlds small, means large."""
    figure, (axes,) = _panels(1)
    for name in record["means"]:
        colour, marker, _ = _look(record, name, COLOURS, "black", "gray")
        found = [record["values"][world].get(name, {}) for world in record["worlds"]]
        points = [(one.get("test/keyword_match"), one.get("retain/keyword_match")) for one in found]
        points = [(x, y) for x, y in points if x is not None and y is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker, color=colour, markersize=4, alpha=0.35, markeredgewidth=0)
            size = 13 if name == record["gold"] else 8
            axes.plot(sum(xs) / len(xs), sum(ys) / len(ys), marker, color=colour, markersize=size, label=name)
    if not axes.lines:
        return None
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="test: keyword match (near gold is good)")
    axes.set(ylabel="retain: keyword match (high is good)", title="large: mean over worlds; small: a world")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _look(record: Mapping[str, Any], name: str, colours: Sequence[str], ink: str, muted: str) -> tuple[str, str, float]:
    """Colour, marker and size of a row's dots."""
    if name in (record["gold"], record["second_gold"]):
        return (ink, "*", 7) if name == record["gold"] else (muted, "*", 5)
    if name == record["vanilla"]:
        return muted, "s", 3.5
    place = record["methods"].index(name)
    return colours[place % len(colours)], MARKERS[place % len(MARKERS)], 3.5


def sequence_figure(
    table: Table, colours: Sequence[str] = COLOURS, ink: str = "black", muted: str = "gray"
) -> Figure | None:
    """Main scores over requests, a line a row, gold dotted; first that of the people of the first request alone.

    Args:
        table: one whose blocks are requests.
        colours: of the methods.
        ink: colour of gold.
        muted: colour of the second gold model.

    Returns:
        The figure; ``None`` if nothing was run.
    """
    main = [column for column in table.columns if column[1] in MAIN] or table.columns
    panels = [(column, TOGETHER) for column in main]
    forgotten = sorted((column for column in main if column[0] in FORGOTTEN), key=lambda column: column[0] != "test")
    panels[:0] = [(column, "request 1") for column in forgotten[:1]]
    kinds = {name: kind for name, kind in table.rows.items() if kind != "vanilla"}
    methods = [name for name, kind in kinds.items() if kind == "method"]
    drawn = [
        ((split, score, heading), people, {name: lines_of(table, name, split, score).get(people) for name in kinds})
        for (split, score, heading), people in panels
    ]
    drawn = [(column, people, lines) for column, people, lines in drawn if any(lines.values())]
    if not drawn:
        return None
    across = min(3, len(drawn))
    down = -(-len(drawn) // across)
    figure = Figure(figsize=(1.2 + 2.8 * across, 0.6 + 2.2 * down), layout="constrained")
    axes_of = list(figure.subplots(down, across, squeeze=False, sharex=True).flat)
    for axes, ((split, _, heading), people, lines) in zip(axes_of, drawn, strict=False):
        for name, line in lines.items():
            if not line:
                continue
            place = methods.index(name) if name in methods else 0
            look = {"gold": (ink, "*", ":"), "floor": (muted, "*", ":")}
            usual = (colours[place % len(colours)], MARKERS[place % len(MARKERS)], "-")
            colour, marker, dashes = look.get(kinds[name], usual)
            axes.plot(*zip(*line, strict=True), dashes, marker=marker, color=colour, label=name)
        axes.set_xticks(range(1, len(table.blocks) + 1))
        axes.set_title(f"{split} {heading}" + f", {people}" * (people != TOGETHER), fontsize="medium")
    for axes in axes_of[len(drawn) :]:
        axes.set_visible(False)
    figure.supxlabel("requests carried out", fontsize="medium")
    handles = {label: one for a in axes_of for one, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend([*handles.values()], [*handles], loc="outside right upper")
    return figure


def sweep_figure(table: Table) -> Figure | None:
    """Scores over what was swept, with their intervals."""
    series, golds = table.sweep(table.blocks[0])
    if not series:
        return None
    figure, (axes,) = _panels(1)
    for (name, points), marker in zip(series.items(), cycle(MARKERS), strict=False):
        (line,) = axes.plot(*zip(*((x, e.value) for x, e in points), strict=True), marker=marker, label=name)
        if with_interval := [(x, e.low, e.high) for x, e in points if e.has_interval]:
            xs, low, high = zip(*with_interval, strict=True)
            axes.fill_between(xs, low, high, alpha=0.12, color=line.get_color())
        if name in golds:
            axes.axhline(golds[name], color=line.get_color(), linewidth=0.7, linestyle=":")
    if table.grid.figure.get("log"):
        axes.set_xscale("log")
    axes.set(xlabel=table.grid.figure["label"], ylim=(-0.03, 1.03), title="dotted: gold")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def cost_figure(table: Table) -> Figure | None:
    """Mean wall time and peak memory of a row's runs, loading and evaluation included."""
    rows = costs(table)
    if not rows:
        return None
    keys = cost_headings(rows)
    figure, panels = _panels(len(keys), len(rows))
    for axes, key in zip(panels, keys, strict=True):
        axes.barh(row_names(rows), [row.get(key, 0) for row in rows])
        axes.set(xlabel=f"{COSTS[key]}, a run")
        axes.invert_yaxis()
    return figure


def key_token_figure(table: Table) -> Figure | None:
    """How well key-token entropy finds private tokens, how high it is, and where the regulariser pulls, by row."""
    rows = key_tokens(table)
    if not rows:
        return None
    figure, panels = _panels(3, 2 * len(rows))
    at = range(len(rows))
    for axes, keys in zip(panels, zip(*[iter(KEY_TOKENS)] * 2, strict=True), strict=True):
        for shift, key in zip((-0.2, 0.2), keys, strict=True):
            places, values = zip(*((i + shift, row.get(key, 0.0)) for i, row in enumerate(rows)), strict=True)
            axes.barh(places, values, height=0.38, label=KEY_TOKENS[key].rpartition(", ")[2])
        axes.set_yticks(at, row_names(rows) if axes is panels[0] else [""] * len(rows))
        axes.set(title=KEY_TOKENS[keys[0]].partition(",")[0])
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    panels[0].axvline(0.5, color="black", linewidth=0.7, linestyle=":")
    return figure


def _panels(count: int, bars: int = 0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.2 + 3.4 * count, max(3.4, 1 + 0.22 * bars)), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _error(value: dict[str, Any]) -> list[list[float]] | None:
    """Lengths of an error bar."""
    if value["low"] is None:
        return None
    return [[max(0.0, value["mean"] - value["low"])], [max(0.0, value["high"] - value["mean"])]]
