"""What a tuning has found, as a Markdown page and a figure of the fronts of the methods."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from viker_lightning.files import write_text
from viker_lightning.reporting.fronts import Point, hypervolume, least_within, pareto_front
from viker_lightning.reporting.html import rendered

from .figures import MARKERS, STYLE
from .tuned import read_tuning

REFERENCE: Point = (0.5, 0.5)
"""Of the hypervolume: forgetting about as bad as vanilla's, half of what vanilla knows of others lost."""

BOUNDS = (0.1, 0.15, 0.2, 0.3)
"""Of forgetting, within which retention is compared."""


def write_tuning(record: Path, results: Path) -> list[Path]:
    """Writes ``<results>/tuning-<record>.md`` and ``<results>/figures/tuning-<record>.svg``.

    Raises:
        UserError: if the record is none.
    """
    tuning, stem = read_tuning(record), f"tuning-{record.stem}"
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
    share = REFERENCE[0] * REFERENCE[1]
    best, matched, volumes, space = [], [], [], []
    for name, found in methods.items():
        chosen = next((one for one in found["trials"] if one["number"] == found["best"]), None)
        if chosen:
            numbers = [f"{chosen[part]:.3f}" for part in ("score", "forgetting", "retention")]
            edges = ", ".join(f"{option} {end}" for option, end in found["edges"].items() if end) or "none"
            best.append([name, str(len(found["trials"])), *numbers, edges, _setting(chosen["setting"])])
        matched.append([name, *(_shown(least_within(points(found), bound)) for bound in BOUNDS)])
        here = [w for w in worlds if w in map(str, found["worlds"])]
        areas = {w: hypervolume(points(found, w), REFERENCE) / share for w in here}
        volumes.append([name, *(_shown(areas.get(w)) for w in worlds), _shown(mean(areas.values()) if areas else None)])
        space += [[name, f"`{option}`", _values(one)] for option, one in found["space"].items()]
    page = {
        "tuning": tuning,
        "file": file.as_posix(),
        "worlds": worlds,
        "best": best,
        "matched": matched,
        "bounds": BOUNDS,
        "volumes": volumes,
        "reference": REFERENCE,
        "space": space,
        "failed": [
            (name, one) for name, found in methods.items() for one in found["trials"] if one.get("score") is None
        ],
        "commits": sorted({str(one["commit"]) for found in methods.values() for one in found["trials"]}),
    }
    return rendered("tuning.md", page)


def front_figure(tuning: dict[str, Any]) -> Figure:
    """Forgetting against retention: every trial a dot, a method's front a line; vanilla, gold and the corner marked."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, found), marker in zip(tuning["methods"].items(), cycle(MARKERS), strict=False):
        dots = points(found)
        if not dots:
            continue
        (line,) = axes.plot(*zip(*pareto_front(dots), strict=True), marker=marker, markersize=5, label=name)
        xs, ys = zip(*dots, strict=True)
        axes.scatter(xs, ys, s=9, marker=marker, alpha=0.4, color=line.get_color(), linewidths=0)
    ends = [ends for found in tuning["methods"].values() for ends in found["models"].values()]
    for name, marker in (("vanilla", "X"), ("gold", "*")):
        if ends:
            at = [mean(end[name][part] for end in ends) for part in ("forgetting", "retention")]
            axes.plot(*at, marker, color="black", markersize=10, label=f"{name} model", clip_on=False)
    axes.plot(0, 0, "+", color="black", markersize=12, label="gold on forgotten, vanilla on others", clip_on=False)
    axes.set(xlabel="forgetting: distance from gold (low is good)", xlim=(0, None), ylim=(0, None))
    axes.set_ylabel("retention: lost of vanilla (low is good)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _setting(setting: dict[str, Any]) -> str:
    return ", ".join(f"`{option.removeprefix('model.')}={value}`" for option, value in setting.items())


def _values(one: Any) -> str:
    if isinstance(one, list):
        return ", ".join(map(str, one))
    kinds = [name for name in ("log", "int") if one[name]]
    return f"{one['low']} to {one['high']}" + (f" ({', '.join(kinds)})" if kinds else "")
