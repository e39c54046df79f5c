"""Reading a grid of ``experiments/``: what is wrong is said before anything runs, in one line with file and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.metrics import NUMBERS, OVERALL, load_scores
from viker_lightning.metrics.prediction import TEXT
from viker_lightning.reporting.contenders import OWN
from viker_lightning.yaml_files import yaml_values

from .grid import Grid, Row, setting

SCORES = [one.name for one in NUMBERS]
SPLITS = [split.value + end for end in ("", TEXT) for split in Split] + [OVERALL]
"""Splits that ``results.json`` may have; ``<split>_text`` has the questions without image."""


def read_grid(file: Path, scale: str, seeds: int) -> Grid:
    """Reads a grid at a scale.

    Args:
        file: of the grid.
        scale: one of its scales.
        seeds: how many seeds its rows have, at most.

    Raises:
        UserError: naming file and entry of what is wrong.
    """
    if seeds < 1:
        raise UserError(f"--seeds: found {seeds}, expected 1 or more")
    if not file.is_file():
        raise UserError(f"{file}: not a readable grid (no such file); give a file of experiments/")
    content = yaml_values(file)
    _check_keys(file, "", content, {"title", "columns", "scales"}, {"published", "figure"})
    at = _scale(file, content["scales"], scale)
    check_columns(file, content["columns"], at.get("options", {}).get("evaluation.scores"))
    rows = _rows(file, f"scales.{scale}", at)
    if "worlds" in at:
        _check_worlds(file, f"scales.{scale}", at, rows)
    if "sequence" in at:
        _check_sequence(file, f"scales.{scale}", at, rows)
    if "figure" in content:
        _check_figure(file, content["figure"], rows)
    return Grid(
        name=file.stem,
        title=content["title"],
        scale=scale,
        note=at["note"],
        columns=content["columns"],
        blocks={str(name): options for name, options in at.get("blocks", {"": {}}).items()},
        rows=rows,
        gold=at.get("gold", ""),
        reference=_reference(file, f"scales.{scale}", at, rows),
        seeds=seeds,
        published=content.get("published", ""),
        tuning=at.get("tuning", ""),
        worlds=at.get("worlds", False),
        sequence=at.get("sequence", False),
        figure=content.get("figure", {}),
        options=at.get("options", {}),
    )


def _scale(file: Path, scales: Any, scale: str) -> dict[str, Any]:
    """The entry of a scale; its rows are checked later."""
    _check_mapping(file, "scales", scales)
    if scale not in scales:
        raise UserError(f"{file}: no scale {scale!r}; found {', '.join(map(str, scales))}")
    at, place = scales[scale], f"scales.{scale}"
    optional = {"config", "options", "blocks", "gold", "reference", "tuning", "worlds", "sequence"}
    _check_keys(file, place, at, {"note", "rows"}, optional)
    _check_mapping(file, f"{place}.options", at.get("options", {}))
    _check_mapping(file, f"{place}.blocks", at.get("blocks", {}))
    for name, options in at.get("blocks", {}).items():
        _check_mapping(file, f"{place}.blocks.{name}", options)
    _check_mapping(file, f"{place}.rows", at["rows"])
    if at.get("tuning") and not Path(at["tuning"]).is_file():
        raise UserError(f"{file}, {place}.tuning: {at['tuning']!r} does not exist; give a file of tried settings")
    if at.get("gold") and at["gold"] not in at["rows"]:
        raise UserError(f"{file}, {place}.gold: no row {at['gold']!r}; found {', '.join(map(str, at['rows']))}")
    return at


def _rows(file: Path, place: str, at: dict[str, Any]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for name, entry in at["rows"].items():
        where, values = f"{place}.rows.{name}", {} if entry is None else entry
        _check_keys(file, where, values, set(), {"config", "options", "seeds", "before", "again"})
        _check_mapping(file, f"{where}.options", values.get("options", {}))
        again = values.get("again", "")
        if again and (again != at.get("gold") or again not in rows):
            raise UserError(f"{file}, {where}.again: found {again!r}, expected the gold row, which stands above it")
        same = {"config": rows[again].config, "options": rows[again].options} if again else {}
        row = Row(str(name), **{"config": at.get("config", ""), **same, **values})
        if not row.before:
            _check_row(file, where, row)
        elif row.before not in at["rows"]:
            raise UserError(f"{file}, {where}.before: no row {row.before!r}; found {', '.join(map(str, at['rows']))}")
        rows[row.name] = row
    return rows


def _check_row(file: Path, where: str, row: Row) -> None:
    """Checks that the YAMLs a row's runs need are there."""
    if not Path(row.config).is_file():
        raise UserError(f"{file}, {where}.config: {row.config!r} does not exist; give the YAML of a run")
    vanilla = str(row.options.get("model.vanilla") or setting(row.config, "model.vanilla"))
    if vanilla.endswith((".yaml", ".yml")) and not Path(vanilla).is_file():
        place = f"{file}, {where}" if "model.vanilla" in row.options else row.config
        raise UserError(f"{place}: model.vanilla {vanilla!r} does not exist; give the YAML of a run, or weights")


def _reference(file: Path, place: str, at: dict[str, Any], rows: dict[str, Row]) -> str:
    """The method that the others are compared with: the one that is named, else :data:`OWN`, else the first."""
    methods = [name for name, row in rows.items() if name != at.get("gold") and not row.before and not row.again]
    reference = at.get("reference", OWN if OWN in methods else next(iter(methods), ""))
    if reference and reference not in methods:
        raise UserError(f"{file}, {place}.reference: no method {reference!r}; found {', '.join(methods)}")
    return reference


def _check_worlds(file: Path, place: str, at: dict[str, Any], rows: dict[str, Row]) -> None:
    """Checks that blocks said to be worlds are: each with data of its own, and the models they are compared with."""
    if not isinstance(at["worlds"], bool):
        raise UserError(f"{file}, {place}.worlds: found {at['worlds']!r}, expected true or false")
    if not at["worlds"]:
        return
    if not at.get("blocks"):
        raise UserError(f"{file}, {place}.worlds: found no blocks, expected one a world")
    roots: dict[str, str] = {}
    for name, options in at["blocks"].items():
        root = re.sub(r"@0*$", "", re.sub(r"@0+(?=\d)", "@", str(options.get("data.root", ""))))  # @0 and none are one
        if not root or root in roots:
            found = f"{root!r}, as in block {roots[root]!r}" if root else "none"
            raise UserError(f"{file}, {place}.blocks.{name}.data.root: found {found}; a world has a root of its own")
        roots[root] = str(name)
    beside = {"gold": at.get("gold"), "before": any(row.before for row in rows.values())}
    beside["again"] = any(row.again for row in rows.values())
    if missing := [key for key, there in beside.items() if not there]:
        raise UserError(
            f"{file}, {place}.worlds: no {missing[0]!r}; worlds need a gold row, a vanilla row (before: a method) and "
            "gold once more (again: the gold row)"
        )


def _check_sequence(file: Path, place: str, at: dict[str, Any], rows: dict[str, Row]) -> None:
    """Checks that blocks said to be requests one after another can be: two at least, and nothing in their way."""
    if not isinstance(at["sequence"], bool):
        raise UserError(f"{file}, {place}.sequence: found {at['sequence']!r}, expected true or false")
    if not at["sequence"]:
        return
    if len(at.get("blocks", {})) < 2 or at.get("worlds"):
        found = "worlds" if at.get("worlds") else f"{len(at.get('blocks', {}))} blocks"
        raise UserError(f"{file}, {place}.sequence: found {found}, expected two blocks or more, one a request")
    if before := [name for name, row in rows.items() if row.before]:
        raise UserError(
            f"{file}, {place}.rows.{before[0]}.before: from the second request on runs begin with what the one before "
            "has left, which is no vanilla model; drop the row"
        )


def rows_to_run(file: Path, grid: Grid, names: Iterable[str]) -> set[str]:
    """Rows chosen by their names, with those that they are compared with.

    Args:
        file: of the grid.
        grid: as it was read.
        names: of rows.

    Raises:
        UserError: naming the nearest row, where there is none of that name.
    """
    names = list(names)
    for name in names:
        _check_name(file, "--rows", "row", name, grid.rows)
    return grid.needed(names)


def check_columns(file: Path, columns: Any, own: str | list[str] | None = None) -> None:
    """Checks that a table's columns are scores of splits.

    Args:
        file: of the grid.
        columns: by split, headings by score.
        own: scores from outside the package, as for ``evaluation.scores``.

    Raises:
        UserError: naming the nearest split or score.
    """
    scores_known = [*SCORES, *(one.name for one in load_scores(own))]
    _check_mapping(file, "columns", columns)
    for split, scores in columns.items():
        _check_name(file, "columns", "split", split, SPLITS)
        _check_mapping(file, f"columns.{split}", scores)
        for score in scores:
            _check_name(file, f"columns.{split}", "score", score, scores_known)


def _check_figure(file: Path, figure: Any, rows: Iterable[str]) -> None:
    """Checks what a figure shows: ``label``, ``x`` (a value by row), ``y`` (``<split>/<score>`` each), ``log``."""
    _check_keys(file, "figure", figure, {"label", "x", "y"}, {"log"})
    _check_mapping(file, "figure.x", figure["x"])
    for row, value in figure["x"].items():
        _check_name(file, "figure.x", "row", row, rows)
        if not isinstance(value, int | float):
            raise UserError(f"{file}, figure.x.{row}: found {value!r}, expected a number")
    if not isinstance(figure["y"], list):
        raise UserError(f"{file}, figure.y: found {figure['y']!r}, expected a list of split/score")
    for column in figure["y"]:
        split, _, score = str(column).partition("/")
        _check_name(file, "figure.y", "split", split, SPLITS)
        _check_name(file, "figure.y", "score", score, SCORES)


def _check_mapping(file: Path, where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{_place(file, where)}: found {value!r}, expected 'name: value' pairs")


def _check_keys(file: Path, where: str, value: Any, needed: set[str], optional: set[str]) -> None:
    """Checks that something has keys, those that are needed among them, and no others."""
    place, keys = _place(file, where), needed | optional
    if not isinstance(value, dict):
        raise UserError(f"{place}: found {type(value).__name__}, expected keys {', '.join(sorted(keys))}")
    for wrong, what in ((set(value) - keys, "unknown"), (needed - set(value), "missing")):
        if wrong:
            key = min(map(str, wrong))
            raise UserError(f"{place}: key {key!r} is {what}; keys are {', '.join(sorted(keys))}")


def _check_name(file: Path, where: str, what: str, name: Any, names: Iterable[str]) -> None:
    """Checks that a name is among those there are; an error names the nearest."""
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise UserError(f"{_place(file, where)}: no {what} {name!r}; {hint}")


def _place(file: Path, where: str) -> str:
    return f"{file}, {where}" if where else str(file)
