"""Figures of a table, as SVG and PDF: trade-off of methods, sweeps, cost, key tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from viker_lightning.metrics import FORGOTTEN
from viker_lightning.metrics.statistics.intervals import Estimate
from viker_lightning.reporting.contenders import Contender
from viker_lightning.reporting.plots import INK, STYLE, look, panels, sweep_figure, trade_off_figure
from viker_lightning.reporting.sequence import TOGETHER

from .measurements import COSTS, KEY_TOKENS, cost_headings, costs, key_tokens, row_names
from .sequences import lines_of
from .table import Table
from .worlds import worlds_record
from .worlds_page import MAIN, main_measures


@matplotlib.rc_context(STYLE)
def draw_figures(table: Table, folder: Path) -> list[Path]:
    """Draws what a table has data for, as SVG files, which it returns; each has a PDF beside it.

    Args:
        table: however far its runs are.
        folder: where the files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Figure | None] = {}
    if table.grid.worlds:
        found = worlds_record(table)
        drawn[table.stem] = worlds_figure(found)
        drawn[f"{table.stem}-trade-off"] = worlds_trade_off_figure(found)
    elif table.grid.figure:
        drawn[table.stem] = swept(table, table.blocks[0])
    else:
        drawn[table.stem] = sequence_figure(table) if table.grid.sequence else None
        drawn[f"{table.stem}-trade-off"] = _trade_off(table)
    drawn[f"{table.stem}-cost"] = cost_figure(table)
    drawn[f"{table.stem}-key-tokens"] = key_token_figure(table)
    files = []
    for stem, figure in drawn.items():
        if figure is not None:
            files.append(folder / f"{stem}.svg")
            figure.savefig(files[-1], metadata={"Date": None})
            figure.savefig(files[-1].with_suffix(".pdf"), metadata={"CreationDate": None})
    return files


def _trade_off(table: Table) -> Figure | None:
    """Keywords leaked about the people to forget, against those known about the retained, a panel a block."""
    found: dict[str, list[tuple[Contender, Estimate, Estimate]]] = {}
    for block, contenders in table.contenders.items():
        for name, model in contenders.items():
            x, y = (table.estimate(block, name, split, "keyword_match") for split in ("test", "retain"))
            if x and y:
                found.setdefault(block, []).append((model, x, y))
    labels = ("test: keyword match (near gold is good)", "retain: keyword match (high is good)")
    return trade_off_figure(found, labels) if found else None


def swept(table: Table, block: str) -> Figure | None:
    """Scores of a block over what was swept; ``None`` if nothing was measured."""
    (series, golds), shown = table.sweep(block), table.grid.figure
    return sweep_figure(series, golds, shown["label"], bool(shown.get("log"))) if series else None


@matplotlib.rc_context(STYLE)
def worlds_figure(record: Mapping[str, Any]) -> Figure | None:
    """Every main score in every world: a dot a world and row, a star for gold, a bar for the mean over worlds."""
    measures, names = main_measures(record), [*record["means"]]
    if not measures:
        return None
    figure, every = panels(len(measures), 3, 2.6, 0.8 + 0.24 * len(names), sharey=True)
    for axes, one in zip(every, measures, strict=True):
        column = one["column"]
        for place, name in enumerate(names):
            colour, marker, size = _look(record, name)
            values = [record["values"][world].get(name, {}).get(column) for world in record["worlds"]]
            last = max(1, len(values) - 1)
            dots = [(x, place + 0.6 * (i / last - 0.5)) for i, x in enumerate(values) if x is not None]
            if dots:
                axes.plot(*zip(*dots, strict=True), marker, color=colour, markersize=size / 2, alpha=0.7)
                mean = record["means"][name][column]["value"]
                axes.plot([mean, mean], [place - 0.4, place + 0.4], color=colour, linewidth=1.6)
        held = record["second_gold" if one["kind"] == "floor" else "gold"]
        if (mean := record["means"].get(held, {}).get(column, {}).get("value")) is not None:
            axes.axvline(mean, color=INK, linewidth=0.7, linestyle=":")
        if one["kind"] != "floor":  # a divergence has no upper end
            axes.set_xlim(min(-0.03, axes.get_xlim()[0]), max(1.03, axes.get_xlim()[1]))
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{one['heading']} {one['sign']}", fontsize="medium")
    every[0].invert_yaxis()  # shared by all
    return figure


def worlds_trade_off_figure(record: Mapping[str, Any]) -> Figure | None:
    """Keywords leaked about the people to forget, against those known about the retained: worlds small, means large."""
    figure, (axes,) = panels(1, 1, 3.4, 2.8)
    for name in record["means"]:
        colour, marker, size = _look(record, name)
        found = [record["values"][world].get(name, {}) for world in record["worlds"]]
        points = [(one.get("test/keyword_match"), one.get("retain/keyword_match")) for one in found]
        points = [(x, y) for x, y in points if x is not None and y is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker, color=colour, markersize=4, alpha=0.35, markeredgewidth=0)
            axes.plot(sum(xs) / len(xs), sum(ys) / len(ys), marker, color=colour, markersize=size, label=name)
    if not axes.lines:
        return None
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="test: keyword match (near gold is good)")
    axes.set(ylabel="retain: keyword match (high is good)", title="large: mean over worlds; small: a world")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _look(record: Mapping[str, Any], name: str) -> tuple[str, str, float]:
    """Colour, marker and size of a row's dots."""
    kinds = {record["gold"]: "gold", record["second_gold"]: "floor", record["vanilla"]: "vanilla"}
    return look(name, kinds.get(name, "method"), record["methods"])


@matplotlib.rc_context(STYLE)
def sequence_figure(table: Table) -> Figure | None:
    """Main scores over requests, a line a row, gold dotted; first that of the people of the first request alone."""
    kinds = {name: kind for name, kind in table.rows.items() if kind != "vanilla"}
    methods = [name for name, kind in kinds.items() if kind == "method"]
    drawn = []
    for (split, score, heading), people in _sequence_panels(table):
        lines = {name: lines_of(table, name, split, score).get(people) for name in kinds}
        if any(lines.values()):
            drawn.append((f"{split} {heading}" + f", {people}" * (people != TOGETHER), lines))
    if not drawn:
        return None
    figure, every = panels(len(drawn), 3, 2.8, 2.2, sharex=True)
    for axes, (title, lines) in zip(every, drawn, strict=True):
        for name, line in ((name, line) for name, line in lines.items() if line):
            colour, marker, _ = look(name, kinds[name], methods)
            dashes = "-" if name in methods else ":"
            axes.plot(*zip(*line, strict=True), dashes, marker=marker, color=colour, label=name)
        axes.set_xticks(range(1, len(table.blocks) + 1))
        axes.set_title(title, fontsize="medium")
    figure.supxlabel("requests carried out", fontsize="medium")
    handles = {label: one for a in every for one, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend([*handles.values()], [*handles], loc="outside right upper")
    return figure


def _sequence_panels(table: Table) -> list[tuple[tuple[str, str, str], str]]:
    """The columns to draw, each with the people it is about; first those of the first request."""
    main = [column for column in table.columns if column[1] in MAIN] or table.columns
    forgotten = sorted((column for column in main if column[0] in FORGOTTEN), key=lambda column: column[0] != "test")
    return [(column, "request 1") for column in forgotten[:1]] + [(column, TOGETHER) for column in main]


def cost_figure(table: Table) -> Figure | None:
    """Mean wall time and peak memory of a row's runs, loading and evaluation included."""
    rows = costs(table)
    if not rows:
        return None
    keys = cost_headings(rows)
    figure, every = panels(len(keys), len(keys), 3.4, max(2.8, 0.4 + 0.22 * len(rows)))
    for axes, key in zip(every, keys, strict=True):
        axes.barh(row_names(rows), [row.get(key, 0) for row in rows])
        axes.set(xlabel=f"{COSTS[key]}, a run")
        axes.invert_yaxis()
    return figure


def key_token_figure(table: Table) -> Figure | None:
    """How well key-token entropy finds private tokens, how high it is, and where the regulariser pulls, by row."""
    rows = key_tokens(table)
    if not rows:
        return None
    figure, every = panels(3, 3, 3.4, max(2.8, 0.4 + 0.44 * len(rows)))
    at = range(len(rows))
    for axes, keys in zip(every, zip(*[iter(KEY_TOKENS)] * 2, strict=True), strict=True):
        for shift, key in zip((-0.2, 0.2), keys, strict=True):
            places, values = zip(*((i + shift, row.get(key, 0.0)) for i, row in enumerate(rows)), strict=True)
            axes.barh(places, values, height=0.38, label=KEY_TOKENS[key].rpartition(", ")[2])
        axes.set_yticks(at, row_names(rows) if axes is every[0] else [""] * len(rows))
        axes.set(title=KEY_TOKENS[keys[0]].partition(",")[0])
        axes.invert_yaxis()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    every[0].axvline(0.5, color=INK, linewidth=0.7, linestyle=":")
    return figure
