"""Figures of a table, as SVG and PDF: trade-off of methods, sweeps, cost, key tokens."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .measurements import COSTS, KEY_TOKENS, cost_headings, costs, key_tokens, row_names
from .table import Table

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
        if table.figure:
            drawn[table.stem] = sweep_figure(table)
        else:
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
        for i, (name, row) in enumerate(table.rows.items()):
            x, y = (table.value(block, name, split, "keyword_match") for split in ("test", "retain"))
            if x is None or y is None:
                continue
            marker, size = {"gold": ("*", 13), "floor": ("*", 8)}.get(row.kind, (MARKERS[i % len(MARKERS)], 6))
            bars = axes.errorbar(x["mean"], y["mean"], _error(y), _error(x), marker, elinewidth=0.6, markersize=size)
            bars.set_label(name)
        axes.set(title=block, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="test: keyword match (near gold is good)")
    if not any(axes.containers for axes in panels):
        return None
    panels[0].set_ylabel("retain: keyword match (high is good)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
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
    if table.figure.get("log"):
        axes.set_xscale("log")
    axes.set(xlabel=table.figure["label"], ylim=(-0.03, 1.03), title="dotted: gold")
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
