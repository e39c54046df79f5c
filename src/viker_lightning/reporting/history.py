"""What was logged while a model was trained, as plots over its steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from viker_lightning.metrics import SPLITS
from viker_lightning.storage.runs.read import Run

from .plots import Series, lines_plot

CURVES = {
    "forget_ce": "cross-entropy, forget",
    "retain_ce": "cross-entropy, retain",
    "ideal_kl": "KL to ideal",
    "hinge": "likelier than ideal (hinge)",
}
WEIGHTS = {"key tokens": "train/gradient_weight_key", "other tokens": "train/gradient_weight_other"}


def curves(run: Run) -> list[tuple[str, Series, Markup]]:
    """What a plot shows, its values and the plot, of each logged term of the loss, and of what was known over time."""
    plots: list[tuple[str, Series, Markup]] = []
    for name, series in run.curves.items():
        term = name.removeprefix("train/")
        if name.startswith("train/") and not term.startswith("gradient_weight"):
            label = CURVES.get(term, term.replace("_", " "))
            plots.append((label, series, lines_plot({label: series}, f"Training curve: {label}")))
    known = {split: run.curves.get(f"{split}/keyword_match", []) for split in SPLITS}
    measured = {split: series for split, series in known.items() if len(series) > 2}
    if measured:
        title = "Private spans leaked, over training"
        plots.append((title, next(iter(measured.values())), lines_plot(measured, title)))
    return plots


def weights(runs: Sequence[Run], where: str = "") -> dict[str, Any] | None:
    """Gradient weight of the regulariser on key and on other tokens, over time; ``None`` if it was not measured."""
    series = {label: mean for label, name in WEIGHTS.items() if (mean := mean_curve(runs, name))}
    if not series:
        return None
    title = f"Gradient weight on key and on other tokens{where and f', {where}'}"
    plot = lines_plot(series, title, "mean |p - ideal|")
    return {"plot": plot, "means": {label: sum(v for _, v in s) / len(s) for label, s in series.items()}}


def method_curves(methods: Mapping[str, Sequence[Run]], where: str = "") -> list[tuple[str, Markup]]:
    """A plot for each term of the loss, with a line for each method: the mean of its seeds."""
    plots = []
    for term, label in CURVES.items():
        series = {name: mean for name, runs in methods.items() if (mean := mean_curve(runs, f"train/{term}"))}
        if series:
            title = f"Training curve: {label}{where and f', {where}'}"
            plots.append((label, lines_plot(series, title, order=list(methods))))
    return plots


def mean_curve(runs: Sequence[Run], name: str) -> Series:
    """Mean over runs of a logged value at every step that all have; empty if one has none."""
    logged = [dict(run.curves.get(name, [])) for run in runs]
    steps = sorted(set.intersection(*(set(one) for one in logged))) if logged else []
    return [(step, sum(one[step] for one in logged) / len(logged)) for step in steps]
