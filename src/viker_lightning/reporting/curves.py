"""Plots as inline SVG: text stays text, and colours are CSS variables, so that a page can be dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from viker_lightning.metrics.statistics.intervals import Estimate

from .contenders import Contender

Series = Sequence[tuple[int, float]]

# Stand-ins: matplotlib knows no CSS variables, and nothing else is drawn in these colours.
INK, MUTED, LINE = "#0a0b01", "#0a0b02", "#0a0b03"
COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
SERIES = [f"#0a0c0{i}" for i in range(8)]
COLOURS |= {colour: f"var(--s{i})" for i, colour in enumerate(SERIES)}
MARKERS = "osD^vPXp"
DASHES = ("-", "--", "-.", ":")

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "viker",
    "text.parse_math": False,  # a run may be called $x$
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


def lines_plot(
    series: Mapping[str, Series], title: str, label: str = "", order: Sequence[str] = (), axis: str = "step"
) -> Markup:
    """Values over training steps, one line each.

    Args:
        series: name to ``(step, value)``; not empty.
        title: what the plot is, for those who cannot see it.
        label: unit of the values.
        order: names that keep their colour over several plots; by default every plot begins anew.
        axis: what values are over, if not over steps.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for name, points in series.items():
            i = list(order or series).index(name)
            steps, values = zip(*points, strict=True)
            alone = len(points) == 1
            dashes, marker = DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)] if alone else ""
            axes.plot(steps, values, dashes, marker=marker, color=SERIES[i % len(SERIES)], label=name)
        axes.set_xlabel(axis)
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if order or len(series) > 1:
            axes.legend(labelcolor=INK, handlelength=2.6)
        return svg(figure, title)


def sweep_plot(
    series: Mapping[str, Sequence[tuple[float, Estimate]]], gold: Mapping[str, float], title: str, label: str, log: bool
) -> Markup:
    """Scores over a setting that was swept, with their intervals.

    Args:
        series: name of a score to ``(setting, estimate)``, in order; not empty.
        gold: what the gold model reaches, by name, drawn as a thin dotted line.
        title: what the plot is, for those who cannot see it.
        label: of the setting.
        log: whether settings are drawn on a logarithmic scale.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for i, (name, points) in enumerate(series.items()):
            colour, marker, dashes = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]
            xs = [x for x, _ in points]
            axes.plot(xs, [e.value for _, e in points], dashes, marker=marker, color=colour, label=name)
            if all(e.has_interval for _, e in points):
                axes.fill_between(xs, [e.low for _, e in points], [e.high for _, e in points], color=colour, alpha=0.12)
            if name in gold:
                axes.axhline(gold[name], color=colour, linewidth=0.8, linestyle=":")
        settings = sorted({x for points in series.values() for x, _ in points})
        if log:
            axes.set_xscale("log")
        axes.set_xticks(settings, [f"{x:g}" for x in settings])
        axes.minorticks_off()
        axes.set(xlabel=label, ylim=(-0.03, 1.03))
        figure.legend(loc="outside lower left", ncols=2, labelcolor=INK, handlelength=2.6)
        return svg(figure, title)


def trade_off_plot(points: Sequence[tuple[Contender, Estimate, Estimate]], labels: Sequence[str], title: str) -> Markup:
    """What is still known of the forgotten people against what is kept; the best place is beside gold, the star.

    Args:
        points: models, with what they know of the forgotten people and of those kept, 0 to 1, and the intervals.
        labels: what is measured of those to be forgotten, and of those to be kept.
        title: what the plot is, for those who cannot see it.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.6 + 0.12 * len(points)), layout="constrained")
        axes = figure.add_subplot()
        drawn = 0
        for model, x, y in points:
            colour = {"vanilla": MUTED, "gold": INK, "floor": MUTED}.get(model.kind, SERIES[drawn % len(SERIES)])
            marker = {"vanilla": "s", "gold": "*", "floor": "*"}.get(model.kind, MARKERS[drawn % len(MARKERS)])
            drawn += model.kind == "method"
            axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=1, alpha=0.5)
            axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=1, alpha=0.5)
            size = 13 if model.kind == "gold" else 7.5
            axes.plot(
                x.value, y.value, marker, color=colour, markersize=size, label=model.name, clip_on=False, zorder=3
            )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.set(xlabel=f"{labels[0]}  (near ★)", ylabel=f"{labels[1]}  better →")
        figure.legend(loc="outside lower left", ncols=2, labelcolor=INK, handletextpad=0.3)
        return svg(figure, title)


def svg(figure: Figure, title: str) -> Markup:
    """A figure as an ``<svg>`` element that scales with the page, names itself, and shares no ID with another."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--font)", text)
    own = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'\bid="', f'id="{own}-', text)
    text = text.replace("url(#", f"url(#{own}-").replace('xlink:href="#', f'href="#{own}-')
    head, _, rest = text.partition(">")
    head = re.sub(r' (width|height|version|xmlns:xlink|xmlns)="[^"]*"', "", head)
    # matplotlib escapes every text it writes.
    return Markup(head) + Markup(' role="img" aria-label="{}"><title>{}</title>').format(title, title) + Markup(rest)
