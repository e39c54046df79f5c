"""Plots in one style, for pages and files; on a page text stays text, and colours are CSS variables: it can be dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator

from viker_lightning.metrics.statistics.intervals import Estimate

from .contenders import Contender

Series = Sequence[tuple[int, float]]

# Those of style.css in the light. A page has the variables of these names in their place, as matplotlib knows none.
INK, MUTED, LINE = "#1d1c1a", "#5f5b55", "#dedad3"
SERIES = ["#3a5bc7", "#c2410c", "#0f766e", "#a21caf", "#8a6d00", "#0369a1", "#be123c", "#4d7c0f"]
COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}
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
    "axes.prop_cycle": cycler(color=SERIES),
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


def panels(
    count: int, across: int, width: float, height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Panels beside each other, so many in a line at most, each as wide and high as is said, in inches."""
    across = max(1, min(across, count))
    down = max(1, -(-count // across))
    figure = Figure(figsize=(1.2 + width * across, 0.6 + height * down), layout="constrained")
    every = list(figure.subplots(down, across, squeeze=False, sharex=sharex, sharey=sharey).flat)
    for axes in every[count:]:
        axes.set_visible(False)
    return figure, every[: max(1, count)]


def look(name: str, kind: str, methods: Sequence[str]) -> tuple[str, str, float]:
    """Colour, marker and size of a model's points; each of the methods keeps its look over several plots."""
    others = {"vanilla": (MUTED, "s", 7.5), "gold": (INK, "*", 13.0), "floor": (MUTED, "*", 7.5)}
    place = methods.index(name) if name in methods else 0
    return others.get(kind, (SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)], 7.5))


@matplotlib.rc_context(STYLE)
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


@matplotlib.rc_context(STYLE)
def sweep_figure(
    series: Mapping[str, Sequence[tuple[float, Estimate]]], gold: Mapping[str, float], label: str, log: bool
) -> Figure:
    """Scores over a setting that was swept, with their intervals.

    Args:
        series: name of a score to ``(setting, estimate)``, in order; not empty.
        gold: what the gold model reaches, by name, drawn as a thin dotted line.
        label: of the setting.
        log: whether settings are drawn on a logarithmic scale.
    """
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
    return figure


@matplotlib.rc_context(STYLE)
def trade_off_figure(
    blocks: Mapping[str, Sequence[tuple[Contender, Estimate, Estimate]]], labels: Sequence[str]
) -> Figure:
    """What is still known of the forgotten people against what is kept; the best place is beside gold, the star.

    Args:
        blocks: by title models, with what they know of the forgotten people and of those kept, 0 to 1, and the
            intervals.
        labels: of the axes, with what is good there: first that of the people to be forgotten.
    """
    models = {model.name: model for points in blocks.values() for model, _, _ in points}
    methods = [name for name, model in models.items() if model.kind == "method"]
    figure, drawn = panels(len(blocks), len(blocks), 3.4, 3 + 0.12 * len(models))
    for axes, (title, points) in zip(drawn, blocks.items(), strict=True):
        for model, x, y in points:
            colour, marker, size = look(model.name, model.kind, methods)
            axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=1, alpha=0.5)
            axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=1, alpha=0.5)
            axes.plot(
                x.value, y.value, marker, color=colour, markersize=size, label=model.name, clip_on=False, zorder=3
            )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=title, xlabel=labels[0], ylabel=labels[1])
    handles = {label: one for a in figure.axes for one, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend([*handles.values()], [*handles], loc="outside lower left", ncols=2, labelcolor=INK, handletextpad=0.3)
    return figure


@matplotlib.rc_context(STYLE)
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
