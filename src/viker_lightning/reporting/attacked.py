"""What attacks got out of a run, as ``attacks.json`` tells it: a section of its report, and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from markupsafe import Markup

from viker_lightning.errors import UserError
from viker_lightning.storage.runs import names

from .plots import lines_plot


def is_gold(label: str) -> bool:
    """Whether a subject of a record is a gold model: ``gold``, ``gold 2`` and so on."""
    return label.partition(" ")[0] == "gold"


def subjects_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Who was attacked in some conditions, and how that is called on a page."""
    found = {label for row in rows for label, of in row.items() if isinstance(of, dict)}
    golds = sorted(filter(is_gold, found))
    return {label: f"★ {label}" if is_gold(label) else label for label in ("run", *golds, "vanilla") if label in found}


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
        ``rows`` (``condition``, ``clean``, numbers by subject, ``inconclusive``, ``more_than_gold``, ``p``), ``worst``,
        the row that leaks most, ``worst_of`` each subject, ``more`` of the run than of gold, ``clean``, ``plots``.
    """
    record = read_attacks(folder)
    if record is None:
        return None
    shown = [_shown(name, attack) for name, attack in record["attacks"].items()]
    rows = [row for attack in shown for row in attack["rows"]]
    return {
        "sentence": record.get("sentence", ""),
        "people": record.get("people"),
        "subjects": subjects_of(rows),
        "attacks": shown,
    }


def _shown(name: str, attack: Mapping[str, Any]) -> dict[str, Any]:
    rows = [row | {"condition": condition(row, attack["axis"])} for row in attack.get("conditions", [])]
    for row in rows:  # of a model that is broken for people who are kept, too, few leaks show no defence
        row["inconclusive"] = row.get("run", {}).get("retain", 1.0) < 0.5
    worst_of = {subject: row[subject] for subject in subjects_of(rows) if (row := worst(rows, subject))}
    golds = worst_of_golds(rows)
    return {
        "name": name,
        **{key: attack[key] for key in ("about", "source", "axis", "says", "on")},
        "rows": rows,
        "worst": worst(rows),
        "worst_of": worst_of,
        "more": more_than_gold(worst_of["run"], golds) if golds and "run" in worst_of else None,
        "clean": next((row for row in rows if row["clean"]), None),
        "plots": _plots(name, rows, attack["axis"]) if attack["axis"] else [],
    }


def condition(row: Mapping[str, Any], axis: str) -> str:
    """A condition in words."""
    return str(row["series"]) + ("" if row["x"] is None else f", {row['x']:g} {axis}")


def worst(rows: Sequence[Mapping[str, Any]], subject: str = "run") -> Mapping[str, Any] | None:
    """The condition that leaks most of the forget people, of those that are attacks; ``None`` if there is none.

    Where run and gold were attacked, it is one that all of them went through: the most of many chances is more than
    that of few, and a part of an attack may have failed on one of them.
    """
    counted = [row for row in rows if row["counts"]]
    some = [row for row in counted if "forget" in row.get(subject, {})]
    asked = [{who for who in row if (who == "run" or is_gold(who)) and "forget" in row[who]} for row in counted]
    everybody: set[str] = set().union(*asked)
    if "run" in everybody and len(everybody) > 1:
        some = [row for row in some if all("forget" in row.get(who, {}) for who in everybody)]
    return max(some, key=lambda row: row[subject]["forget"], default=None)


def worst_of_golds(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """Numbers of each gold model under the condition that leaks most of it."""
    return [row[gold] for gold in subjects_of(rows) if is_gold(gold) and (row := worst(rows, gold))]


def more_than_gold(run: Mapping[str, float], golds: Sequence[Mapping[str, float]]) -> float:
    """How much more comes out of a run than of gold, each less what guessing gives where that is known, -2 to 2.

    Args:
        run: numbers of a condition: ``forget``, and perhaps ``above``, what is more than guessing gives where the two
            were measured on the same questions, or ``chance``.
        golds: the same of one or several gold models, each of the condition that leaks most of it; their mean
            counts.
    """
    mine, *theirs = (of.get("above", of["forget"] - of.get("chance", 0.0)) for of in (run, *golds))
    return mine - mean(theirs)


def _plots(name: str, rows: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[str, Markup]]:
    """One plot a curve: the forget people of everybody attacked, and the people the run is to keep."""
    found = []
    for series in dict.fromkeys(row["series"] for row in rows if row["x"] is not None):
        curve = [row for row in rows if row["series"] == series and row["x"] is not None]
        drawn = [(label, who, "forget") for who, label in subjects_of(rows).items()]
        lines = {
            label: points
            for label, who, number in [*drawn, ("run, people who are kept", "run", "retain")]
            if (points := [(row["x"], row[who][number]) for row in curve if number in row.get(who, {})])
        }
        if lines:
            found.append((series, lines_plot(lines, f"{name}: {series}", "leaks", axis=axis)))
    return found
