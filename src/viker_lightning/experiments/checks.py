"""What is wrong with a grid is said before anything runs: one line with the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.metrics import NUMBERS, OVERALL, load_scores

SCORES = [one.name for one in NUMBERS]
SPLITS = [split.value + end for end in ("", "_text") for split in Split] + [OVERALL]
"""Splits that ``results.json`` may have; ``<split>_text`` has the questions without image."""


def mapping(file: Path, where: str, found: Any) -> dict[Any, Any]:
    """Returns what it is given.

    Raises:
        UserError: if that is no mapping.
    """
    if not isinstance(found, dict):
        raise UserError(f"{_place(file, where)}: found {found!r}, expected 'name: value' pairs")
    return found


def only(file: Path, where: str, found: Any, known: set[str], needed: set[str]) -> None:
    """Checks the keys of a mapping.

    Raises:
        UserError: if it is none, or a key is unknown or missing.
    """
    place = _place(file, where)
    if not isinstance(found, dict):
        raise UserError(f"{place}: found {type(found).__name__}, expected keys {', '.join(sorted(known))}")
    for wrong, what in ((set(found) - known, "unknown"), (needed - set(found), "missing")):
        if wrong:
            key = min(map(str, wrong))
            raise UserError(f"{place}: key {key!r} is {what}; keys are {', '.join(sorted(known))}")


def check_columns(file: Path, columns: Any, own: str | list[str] | None = None) -> None:
    """Checks that a table's columns are scores of splits.

    Args:
        file: of the grid.
        columns: by split, headings by score.
        own: scores from outside the package, as for ``evaluation.scores``.

    Raises:
        UserError: naming the nearest split or score.
    """
    known = [*SCORES, *(one.name for one in load_scores(own))]
    for split, scores in mapping(file, "columns", columns).items():
        _known(file, "columns", "split", split, SPLITS)
        for score in mapping(file, f"columns.{split}", scores):
            _known(file, f"columns.{split}", "score", score, known)


def check_figure(file: Path, figure: Any, rows: Iterable[str]) -> None:
    """Checks what a figure shows: ``label``, ``x`` (a value by row), ``y`` (``<split>/<score>`` each), ``log``.

    Raises:
        UserError: naming the key that is wrong.
    """
    only(file, "figure", figure, {"label", "log", "x", "y"}, {"label", "x", "y"})
    for row, value in mapping(file, "figure.x", figure["x"]).items():
        _known(file, "figure.x", "row", row, rows)
        if not isinstance(value, int | float):
            raise UserError(f"{file}, figure.x.{row}: found {value!r}, expected a number")
    if not isinstance(figure["y"], list):
        raise UserError(f"{file}, figure.y: found {figure['y']!r}, expected a list of split/score")
    for column in figure["y"]:
        split, _, score = str(column).partition("/")
        _known(file, "figure.y", "split", split, SPLITS)
        _known(file, "figure.y", "score", score, SCORES)


def _known(file: Path, where: str, what: str, found: Any, known: Iterable[str]) -> None:
    known = list(known)
    if found not in known:
        near = difflib.get_close_matches(str(found), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"{_place(file, where)}: no {what} {found!r}; {hint}")


def _place(file: Path, where: str) -> str:
    return f"{file}, {where}" if where else str(file)
