"""What attacks got out of a run, as ``attacks.json`` tells it: a section of its report, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from viker_lightning.errors import UserError
from viker_lightning.storage.runs import names

from .plots import lines_plot

SUBJECTS = {"run": "run", "gold": "★ gold", "vanilla": "vanilla"}
"""Who is attacked, and how that is called on a page."""


def read_attacks(folder: Path) -> dict[str, Any] | None:
    """The record of the attacks on a run; ``None`` if there were none."""
    file = folder / names.ATTACKED
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(one["on"], dict) for one in found["attacks"].values()):
            raise ValueError("no attacks")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: holds no attacks ({error}); remove it, or attack the run again") from error
    return found


def attacked(folder: Path) -> dict[str, Any] | None:
    """What a page shows of the attacks on a run; ``None`` if there were none.

    Returns:
        ``sentence``; ``subjects``, who was attacked; ``attacks``: ``name``, ``about``, ``source``, ``says``, ``on``,
        ``rows`` (``condition``, ``clean``, numbers by subject, ``more_than_gold``, ``p``), ``worst``, the row that
        brings out most, ``worst_of`` each subject, ``more`` of the run than of gold, ``clean`` and ``plots``.
    """
    record = read_attacks(folder)
    if record is None:
        return None
    shown = [_shown(name, attack) for name, attack in record["attacks"].items()]
    rows = [row for attack in shown for row in attack["rows"]]
    return {
        "sentence": record.get("sentence", ""),
        "people": record.get("people"),
        "subjects": {name: label for name, label in SUBJECTS.items() if any(name in row for row in rows)},
        "attacks": shown,
    }


def _shown(name: str, attack: Mapping[str, Any]) -> dict[str, Any]:
    rows = [row | {"condition": condition(row, attack["axis"])} for row in attack.get("conditions", [])]
    worst_of = {subject: row[subject] for subject in SUBJECTS if (row := worst(rows, subject))}
    both = {"run", "gold"} <= worst_of.keys()
    return {
        "name": name,
        **{key: attack[key] for key in ("about", "source", "axis", "says", "on")},
        "rows": rows,
        "worst": worst(rows),
        "worst_of": worst_of,
        "more": more_than_gold(worst_of["run"], worst_of["gold"]) if both else None,
        "clean": next((row for row in rows if row["clean"]), None),
        "plots": _plots(name, rows, attack["axis"]) if attack["axis"] else [],
    }


def condition(row: Mapping[str, Any], axis: str) -> str:
    """A condition in words."""
    return row["series"] if row["x"] is None else f"{row['series']}, {row['x']:g} {axis}"


def worst(rows: Sequence[Mapping[str, Any]], subject: str = "run") -> Mapping[str, Any] | None:
    """The condition that brings out most of the forget people, of those that are attacks; ``None`` if there is none.

    Where run and gold were attacked, it is one that both went through: the most of many chances is more than that of
    few, and a part of an attack may have failed on one of them.
    """
    some = [row for row in rows if row["counts"] and "forget" in row.get(subject, {})]
    asked = [{who for who in ("run", "gold") if "forget" in row.get(who, {})} for row in rows if row["counts"]]
    if set().union(*asked) == {"run", "gold"}:
        some = [row for row in some if all("forget" in row.get(who, {}) for who in ("run", "gold"))]
    return max(some, key=lambda row: row[subject]["forget"], default=None)


def more_than_gold(run: Mapping[str, float], gold: Mapping[str, float]) -> float:
    """How much more comes out of a run than of gold, each less what guessing gives where that is known, -2 to 2.

    Args:
        run: numbers of a condition: ``forget``, and perhaps ``above``, what is more than guessing gives where the two
            were measured on the same questions, or ``chance``.
        gold: the same of gold, of the condition that brings out most of gold.
    """
    mine, golds = (of.get("above", of["forget"] - of.get("chance", 0.0)) for of in (run, gold))
    return mine - golds


def _plots(name: str, rows: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[str, Markup]]:
    """One plot a curve: the forget people of everybody attacked, and the people the run is to keep."""
    found = []
    for series in dict.fromkeys(row["series"] for row in rows if row["x"] is not None):
        lines: dict[str, list[tuple[int, float]]] = {}
        for subject, label in SUBJECTS.items():
            points = [(row["x"], row[subject]["forget"]) for row in rows if _has(row, series, subject, "forget")]
            lines |= {label: points} if points else {}
        kept = [(row["x"], row["run"]["retain"]) for row in rows if _has(row, series, "run", "retain")]
        lines |= {"run, people who are kept": kept} if kept else {}
        if lines:
            found.append((series, lines_plot(lines, f"{name}: {series}", "came out", axis=axis)))
    return found


def _has(row: Mapping[str, Any], series: str, subject: str, number: str) -> bool:
    return row["series"] == series and row["x"] is not None and number in row.get(subject, {})
