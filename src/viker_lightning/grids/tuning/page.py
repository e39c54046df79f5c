"""What a tuning has found, as a Markdown page and a figure of the fronts of the methods."""

from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from viker_lightning.metrics.statistics.fronts import Point, hypervolume, least_within, pareto_front
from viker_lightning.reporting import section
from viker_lightning.reporting.plots import INK, MUTED, SERIES, STYLE, panels
from viker_lightning.reporting.section import Section
from viker_lightning.storage.files import write_text

from .tuning_record import PARTS, read_tuning

REFERENCE: Point = (0.5, 0.5)
"""Of the hypervolume: forgetting about as bad as vanilla's, half of what vanilla knows of others lost."""

BOUNDS = (0.1, 0.15, 0.2, 0.3)
"""Of forgetting, within which retention is compared."""


def write_tuning(record: Path, results: Path) -> list[Path]:
    """Writes ``<results>/tuning-<record>.md`` and ``<results>/figures/tuning-<record>.svg``."""
    tuning, stem = read_tuning(record), f"tuning-{record.stem.removeprefix('tuning-')}"
    page, figure = results / f"{stem}.md", results / "figures" / f"{stem}.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, markdown(tuning, record))
    with matplotlib.rc_context(STYLE):
        front_figure(tuning).savefig(figure, metadata={"Date": None})
    return [page, figure]


def points(method: dict[str, Any], world: str = "") -> list[Point]:
    """Forgetting and retention of every trial that has a score, in one world or, by default, the mean over all."""
    scored = [one for one in method["trials"] if one.get("score") is not None]
    chosen = [one["worlds"][world] if world else one for one in scored]
    return [(one["forgetting"], one["retention"]) for one in chosen]


def markdown(tuning: dict[str, Any], file: Path) -> str:
    """A page: the best setting of each method, retention at matched forgetting, hypervolumes, spaces."""
    methods = tuning["methods"]
    worlds = sorted({str(seed) for one in methods.values() for seed in one["worlds"]}, key=int)
    best, matched, volumes, space = [], [], [], []
    for name, found in methods.items():
        best += _best(name, found)
        matched.append([name, *(_shown(least_within(points(found), bound)) for bound in BOUNDS)])
        volumes.append([name, *_volumes(found, worlds)])
        space += [[name, f"`{option}`", _values(one)] for option, one in found["space"].items()]
    failed = [
        f"- {name} {one['number']}: {one['error']}"
        for name, found in methods.items()
        for one in found["trials"]
        if one.get("score") is None
    ]
    commits = sorted({str(one["commit"]) for found in methods.values() for one in found["trials"]})
    of = "Forgetting against retention of every setting, with the front of each method"
    return section.markdown(
        [
            "# Tuning",
            f"Every method tried its settings on worlds of `{tuning['root']}` that are there for tuning alone "
            f"({', '.join(worlds)}). All settings and their numbers are in `{file.as_posix()}`. Numbers are means over "
            "worlds unless a world is named.",
            tuning["about"],
            f"![{of}](figures/tuning-{file.stem.removeprefix('tuning-')}.svg)",
            Section(
                "Best setting of each method",
                ["method", "settings", "score", *PARTS, "at an edge", "setting"],
                best,
                "Low is good. An option at the edge of its range is named with the end; there the range is to be "
                "widened.",
            ),
            Section(
                "Retention at matched forgetting",
                ["method", *(f"≤ {bound}" for bound in BOUNDS)],
                matched,
                "The best retention among the settings whose forgetting is at most the bound; empty where no setting "
                "gets there. Low is good.",
            ),
            Section(
                "Hypervolume of each method's front",
                ["method", *worlds, "mean"],
                volumes,
                f"By world, of forgetting and retention, reference point {', '.join(map(str, REFERENCE))}, as a share "
                "of what the corner (0, 0) would have. High is good.",
            ),
            Section(
                "Spaces",
                ["method", "option", "values"],
                space,
                f"The first setting of a method is the one its config had before, the next {tuning['startup'] - 1} are "
                "drawn at random, the others by Optuna's TPE.",
            ),
            Section("Failed", note="\n".join(failed)) if failed else "",
            Section("Made with", note=f"- commit: {', '.join(commits)}"),
        ]
    )


def _best(name: str, method: dict[str, Any]) -> list[list[str]]:
    """The row of a method's best setting; none before it has one."""
    chosen = next((trial for trial in method["trials"] if trial["number"] == method["best"]), None)
    if not chosen:
        return []
    numbers = [_shown(chosen.get(part)) for part in ("score", *PARTS)]
    edges = ", ".join(f"{option} {end}" for option, end in method["edges"].items() if end) or "none"
    setting = ", ".join(f"`{option.removeprefix('model.')}={value}`" for option, value in chosen["setting"].items())
    return [[name, str(len(method["trials"])), *numbers, edges, setting]]


def _volumes(method: dict[str, Any], worlds: list[str]) -> list[str]:
    """The hypervolume of a method's front in every world, and on average."""
    tried = [world for world in worlds if world in map(str, method["worlds"])]
    share = REFERENCE[0] * REFERENCE[1]
    areas = {world: hypervolume(points(method, world), REFERENCE) / share for world in tried}
    return [*(_shown(areas.get(world)) for world in worlds), _shown(mean(areas.values()) if areas else None)]


def front_figure(tuning: dict[str, Any]) -> Figure:
    """Forgetting against retention, a panel a method: every trial a dot, its front a line, those of others grey.

    The axis of retention is one of square roots, since most of what matters is near 0.
    """
    methods = {name: found for name, found in tuning["methods"].items() if points(found)}
    fronts = {name: pareto_front(points(found)) for name, found in methods.items()}
    figure, every = panels(len(methods), 4, 1.5, 1.5, sharex=True, sharey=True)
    for axes, (name, found) in zip(every, methods.items(), strict=False):
        for front in fronts.values():
            axes.plot(*zip(*front, strict=True), color=MUTED, linewidth=0.5, alpha=0.5)
        axes.plot(*zip(*points(found), strict=True), "o", markersize=3, alpha=0.6, color=SERIES[0], clip_on=False)
        axes.plot(*zip(*fronts[name], strict=True), "-", linewidth=1.6, color=SERIES[0])
        for end, marker in (("vanilla", "X"), ("gold", "*")) if found["models"] else ():
            at = [mean(one[end][part] for one in found["models"].values()) for part in ("forgetting", "retention")]
            axes.plot(*at, marker, color=INK, markersize=6, clip_on=False)
        axes.set_title(name, fontsize="small")
    every[0].set(xlim=(0, None), ylim=(0, None))  # shared by all
    every[0].set_yscale("function", functions=(np.sqrt, np.square))
    every[0].set_yticks([0, 0.05, 0.2, 0.5, 1.0])
    figure.supxlabel("forgetting: distance from gold (low is good); X vanilla, ★ gold", fontsize="small")
    figure.supylabel("retention: lost of vanilla (low is good)", fontsize="small")
    return figure


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _values(one: Any) -> str:
    if isinstance(one, list):
        return ", ".join(map(str, one))
    kinds = [name for name in ("log", "int") if one[name]]
    return f"{one['low']} to {one['high']}" + (f" ({', '.join(kinds)})" if kinds else "")
