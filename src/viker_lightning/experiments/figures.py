"""Figures of a grid, as SVG and PDF: trade-off of methods, sweeps, cost, key tokens. Drawn from run folders only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .facts import COSTS, KEY_TOKENS, costs, key_tokens, measured
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


def figures(table: Table, folder: Path) -> list[Path]:
    """Draws what a table has data for.

    Args:
        table: of a grid.
        folder: where the files go.

    Returns:
        The SVG files; each has a PDF beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{table.grid.name}-{table.grid.scale}"
    drawn: dict[str, Figure | None] = {}
    with matplotlib.rc_context(STYLE):
        if table.grid.figure:
            drawn[name] = sweep_figure(table)
        else:
            drawn[f"{name}-trade-off"] = trade_off_figure(table)
        drawn[f"{name}-cost"] = cost_figure(table)
        drawn[f"{name}-key-tokens"] = key_token_figure(table)
        files = []
        for stem, figure in drawn.items():
            if figure is not None:
                files.append(folder / f"{stem}.svg")
                figure.savefig(files[-1], metadata={"Date": None})
                figure.savefig(files[-1].with_suffix(".pdf"), metadata={"CreationDate": None})
    return files


def trade_off_figure(table: Table) -> Figure | None:
    """Keywords told about the people to forget, against those told about the retained; gold is a star."""
    blocks = [block for block in table.blocks if table.contenders[block]]
    if not blocks:
        return None
    figure, panels = _panels(len(blocks))
    for block, axes in zip(blocks, panels, strict=True):
        for i, name in enumerate(table.grid.rows):
            x, y = (table.value(block, name, split, "keyword_match") for split in ("test", "retain"))
            if x is None or y is None:
                continue
            gold = name == table.grid.gold or bool(table.grid.rows[name].again)
            marker, size = ("*", 13 if name == table.grid.gold else 8) if gold else (MARKERS[i % len(MARKERS)], 6)
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
    wanted = table.grid.figure
    block = table.blocks[0]
    figure, (axes,) = _panels(1)
    for i, column in enumerate(wanted["y"]):
        split, _, score = column.partition("/")
        found = [(x, value) for row, x in wanted["x"].items() if (value := table.value(block, row, split, score))]
        if not found:
            continue
        xs, ys = [float(x) for x, _ in found], [value["mean"] for _, value in found]
        (line,) = axes.plot(xs, ys, marker=MARKERS[i % len(MARKERS)], label=f"{split}: {score.replace('_', ' ')}")
        sure = [(x, v["low"], v["high"]) for x, (_, v) in zip(xs, found, strict=True) if v["low"] is not None]
        if sure:
            at, low, high = zip(*sure, strict=True)
            axes.fill_between(at, low, high, alpha=0.12, color=line.get_color())
        gold = table.value(block, table.grid.gold, split, score) if table.grid.gold else None
        if gold:
            axes.axhline(gold["mean"], color=line.get_color(), linewidth=0.7, linestyle=":")
    if not axes.lines:
        return None
    if wanted.get("log"):
        axes.set_xscale("log")
    axes.set(xlabel=wanted["label"], ylim=(-0.03, 1.03), title="dotted: gold")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def cost_figure(table: Table) -> Figure | None:
    """Mean wall time and peak memory of a row's runs, loading and evaluation included."""
    noted = costs(table)
    if not noted:
        return None
    figure, panels = _panels(len(measured(noted)), len(noted))
    names = _names(noted)
    for axes, key in zip(panels, measured(noted), strict=True):
        axes.barh(names, [fact.get(key, 0) for fact in noted])
        axes.set(xlabel=f"{COSTS[key]}, a run")
        axes.invert_yaxis()
    return figure


def key_token_figure(table: Table) -> Figure | None:
    """How well key-token entropy finds private tokens, how high it is, and where the regulariser pulls, by row."""
    found = key_tokens(table)
    if not found:
        return None
    figure, panels = _panels(3, 2 * len(found))
    at = range(len(found))
    for axes, keys in zip(panels, zip(*[iter(KEY_TOKENS)] * 2, strict=True), strict=True):
        for shift, key in zip((-0.2, 0.2), keys, strict=True):
            places, values = zip(*((i + shift, fact.get(key, 0.0)) for i, fact in enumerate(found)), strict=True)
            axes.barh(places, values, height=0.38, label=KEY_TOKENS[key].rpartition(", ")[2])
        axes.set_yticks(at, _names(found) if axes is panels[0] else [""] * len(found))
        axes.set(title=KEY_TOKENS[keys[0]].partition(",")[0])
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    panels[0].axvline(0.5, color="black", linewidth=0.7, linestyle=":")
    return figure


def _names(facts: Sequence[dict[str, Any]]) -> list[str]:
    several = len({fact["block"] for fact in facts}) > 1
    return [f"{fact['block']}, {fact['row']}" if several else fact["row"] for fact in facts]


def _panels(count: int, bars: int = 0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.2 + 3.4 * count, max(3.4, 1 + 0.22 * bars)), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _error(value: dict[str, Any]) -> list[list[float]] | None:
    """Lengths of an error bar."""
    if value["low"] is None:
        return None
    return [[max(0.0, value["mean"] - value["low"])], [max(0.0, value["high"] - value["mean"])]]
