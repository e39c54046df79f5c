"""The record of a tuning: what the studies have found, as plain values, written and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from viker_lightning.errors import UserError
from viker_lightning.storage.files import write_text
from viker_lightning.storage.runs.provenance import git_commit

from .closeness import ABOUT, KL, Closeness, Models, Numbers, closeness
from .spaces import Range, Space, Spaces, as_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STARTUP = 5
"""So many settings of a study are drawn at random, before the sampler learns from them."""

PARTS = ("forgetting", "retention", "inside")
"""Of a score, see :class:`~viker_lightning.grids.tuning.closeness.Closeness`; the last one of some methods alone."""

DIGITS = 3
"""Significant ones of a number drawn from a range."""


def tried(study: Study) -> list[FrozenTrial]:
    """The trials that have ended, those that failed among them, in their order."""
    return [one for one in study.get_trials() if one.state.is_finished()]


def setting_of(trial: Trial | FrozenTrial, space: Space) -> dict[str, Any]:
    """What a trial draws, or has drawn, by option; numbers are rounded to :data:`DIGITS`."""
    found: dict[str, Any] = {}
    for option, one in space.items():
        if not isinstance(one, Range):
            found[option] = trial.suggest_categorical(option, one.values)
        elif one.int:
            found[option] = trial.suggest_int(option, int(one.low), int(one.high), log=one.log)
        else:
            found[option] = float(f"{trial.suggest_float(option, one.low, one.high, log=one.log):.{DIGITS}g}")
    return found


def entry(spaces: Spaces, method: str, study: Study, worlds: Sequence[int]) -> dict[str, Any]:
    """What the record says of a method: space, models, trials, the best of them, and its options at an edge."""
    space, trials = spaces.methods[method], []
    for one in tried(study):
        noted = {"number": one.number, "commit": one.user_attrs["commit"], "setting": setting_of(one, space)}
        if "error" in one.user_attrs:
            trials.append(noted | {"error": one.user_attrs["error"]})
            continue
        at = {world: Closeness(**found) for world, found in one.user_attrs["closeness"].items()}
        by_world = {
            world: _numbers(found) | {"values": _rounded(one.user_attrs["values"][world])}
            for world, found in at.items()
        }
        known = [part for part in PARTS if all(getattr(c, part) is not None for c in at.values())]
        overall = Closeness(**{part: mean(getattr(c, part) for c in at.values()) for part in known})
        trials.append(noted | _numbers(overall) | {"worlds": by_world})
    scored = [one for one in trials if "score" in one]
    best = min(scored, key=lambda one: one["score"]) if scored else None
    models = {}
    for world, noted in study.user_attrs.get("models", {}).items():
        them = Models(**noted)
        ends = {"vanilla": closeness(them.vanilla, them), "gold": closeness(_gold(them), them)}
        models[world] = {name: _numbers(end) for name, end in ends.items()} | {
            f"{name} values": _rounded(numbers) for name, numbers in noted.items()
        }
    return {
        "config": spaces.config(method),
        "worlds": list(worlds),
        "options": spaces.options,
        "space": as_json(space),
        "models": models,
        "best": best and best["number"],
        "edges": {option: one.edge(best["setting"][option]) for option, one in space.items()} if best else {},
        "trials": trials,
    }


def _gold(models: Models) -> Numbers:
    """Gold as a model: its KL to itself is none."""
    return {split: {KL: 0.0, **scores} for split, scores in models.gold.items()}


def write_record(file: Path, spaces: Spaces, studies: dict[str, Study], worlds: Sequence[int]) -> None:
    """Writes what studies have found, by method; what a file says of other methods is kept."""
    entries = read_tuning(file)["methods"] if file.exists() else {}
    entries |= {name: entry(spaces, name, study, worlds) for name, study in studies.items()}
    ordered = {name: entries[name] for name in spaces.methods if name in entries}
    record = {"about": ABOUT, "root": spaces.root, "startup": STARTUP, "commit": git_commit(), "methods": ordered}
    write_text(file, json.dumps(record, indent=1) + "\n")


def _numbers(one: Closeness) -> dict[str, float]:
    return {part: round(value, 4) for part in (*PARTS, "score") if (value := getattr(one, part)) is not None}


def _rounded(numbers: Numbers) -> dict[str, float]:
    return {f"{split}/{one}": round(value, 4) for split, scores in numbers.items() for one, value in scores.items()}


def read_tuning(file: Path) -> dict[str, Any]:
    """The record of a tuning."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as a record of make tune ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("methods"), dict):
        raise UserError(f"{file}: no record of make tune; found no 'methods' in it; make it again with make tune")
    return found


def settings_tried(file: Path) -> list[dict[str, Any]]:
    """Every setting of a record: method, setting, score and its parts; by method, the best first, failed ones last."""
    rows = []
    for name, found in read_tuning(file)["methods"].items():
        parts = ("number", "setting", "score", *PARTS)
        mine = [{"method": name} | {part: one.get(part) for part in parts} for one in found["trials"]]
        rows += sorted(mine, key=lambda one: (one["score"] is None, one["score"], one["number"]))
    return rows
