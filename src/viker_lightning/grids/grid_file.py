"""Reading a grid of ``experiments/``: what is wrong is said before anything runs, in one line with file and key."""

import difflib
import re
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any

from viker_lightning.data.records import Split
from viker_lightning.errors import UserError, short
from viker_lightning.metrics import NUMBERS, OVERALL, load_scores
from viker_lightning.metrics.prediction import TEXT
from viker_lightning.reporting.contenders import OWN
from viker_lightning.storage.yaml_files import yaml_values
from viker_lightning.terminal.commands import listed

from .grid import Grid, Row, config_option

SCORES = [one.name for one in NUMBERS]
SPLITS = [split.value + end for end in ("", TEXT) for split in Split] + [OVERALL]
"""Splits that ``results.json`` may have; ``<split>_text`` has the questions without image."""

Kinds = Mapping[str, type]
"""What the value of a key is, as far as it is said in :data:`KINDS`."""

KINDS = {
    str: "a text",
    int: "a whole number, 1 or more",
    float: "a number, as 0.001 or 1.0e-3",
    bool: "true or false",
    list: "a list",
    dict: "'name: value' pairs",
}
SCALE: Kinds = {
    **{"config": str, "options": dict, "blocks": dict, "gold": str, "reference": str, "tuning": str},
    **{"worlds": bool, "sequence": bool},
}
ROW: Kinds = {"config": str, "options": dict, "seeds": int, "before": str, "again": str}
"""What a scale may have besides ``note`` and ``rows``, and what a row may have."""


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
    _check_keys(file, "", content, {"title": str, "columns": dict, "scales": dict}, {"published": str, "figure": dict})
    at = _scale(file, content["scales"], scale)
    check_columns(file, content["columns"], at.get("options", {}).get("evaluation.scores"))
    rows = _rows(file, f"scales.{scale}", at)
    if at.get("worlds"):
        _check_worlds(file, f"scales.{scale}", at, rows)
    if at.get("sequence"):
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
    if scale not in scales:
        raise UserError(f"{file}: no scale {scale!r}; found {', '.join(map(str, scales))}")
    at, place = scales[scale], f"scales.{scale}"
    _check_keys(file, place, at, {"note": str, "rows": dict}, SCALE)
    _check_options(file, f"{place}.options", at.get("options", {}))
    for part in ("rows", "blocks"):
        if at.get(part, True) == {}:
            raise UserError(f"{file}, {place}.{part}: found none, expected one at least")
    for name, options in at.get("blocks", {}).items():
        _check_options(file, f"{place}.blocks.{name}", options)
    if at.get("tuning") and not Path(at["tuning"]).is_file():
        raise UserError(f"{file}, {place}.tuning: {at['tuning']!r} does not exist; give a file of tried settings")
    return at


def _rows(file: Path, place: str, at: dict[str, Any]) -> dict[str, Row]:
    given = {str(name): {} if entry is None else entry for name, entry in at["rows"].items()}
    for name, values in given.items():
        _check_keys(file, f"{place}.rows.{name}", values, {}, ROW)
        _check_options(file, f"{place}.rows.{name}.options", values.get("options", {}))
    trained = [name for name, values in given.items() if not values.get("before")]
    named = {f"rows.{name}.before": values.get("before") for name, values in given.items()} | {"gold": at.get("gold")}
    for key, name in named.items():
        if name and name not in trained:
            raise UserError(f"{file}, {place}.{key}: no row {name!r} that is trained; found {', '.join(trained)}")
    rows: dict[str, Row] = {}
    for name, values in given.items():
        where, again = f"{place}.rows.{name}", values.get("again", "")
        if again and (again != at.get("gold") or again not in rows):
            raise UserError(f"{file}, {where}.again: found {again!r}, expected the gold row, which stands above it")
        same = {"config": rows[again].config, "options": rows[again].options} if again else {}
        rows[name] = Row(name, **{"config": at.get("config", ""), **same, **values})
        if not rows[name].before:
            _check_row(file, where, rows[name])
    return rows


def _check_row(file: Path, where: str, row: Row) -> None:
    """Checks that the YAMLs a row's runs need are there."""
    if not Path(row.config).is_file():
        raise UserError(f"{file}, {where}.config: {row.config!r} does not exist; give the YAML of a run")
    vanilla = str(row.options.get("model.vanilla") or config_option(row.config, "model.vanilla"))
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
    if len(at.get("blocks", {})) < 2 or at.get("worlds"):
        found = "worlds" if at.get("worlds") else f"{len(at.get('blocks', {}))} blocks"
        raise UserError(f"{file}, {place}.sequence: found {found}, expected two blocks or more, one a request")
    if before := [name for name, row in rows.items() if row.before]:
        raise UserError(
            f"{file}, {place}.rows.{before[0]}.before: from the second request on runs begin with what the one before "
            "has left, which is no vanilla model; drop the row"
        )


def rows_to_run(file: Path, grid: Grid, names: Iterable[str]) -> set[str]:
    """Rows chosen by their names, with those that they are compared with."""
    names = listed(names, grid.rows)
    for name in names:
        _check_name(file, "--rows", "row", name, grid.rows)
    return grid.needed(names)


def check_columns(file: Path, columns: Any, own: str | list[str] | None = None) -> None:
    """Checks that a table's columns are scores of splits."""
    scores_known = [*SCORES, *(one.name for one in load_scores(own))]
    for split, scores in columns.items():
        _check_name(file, "columns", "split", split, SPLITS)
        _check_kind(file, f"columns.{split}", scores, dict)
        for score, heading in scores.items():
            _check_name(file, f"columns.{split}", "score", score, scores_known)
            _check_kind(file, f"columns.{split}.{score}", heading, str)


def _check_figure(file: Path, figure: Any, rows: Iterable[str]) -> None:
    """Checks what a figure shows: ``label``, ``x`` (a value by row), ``y`` (``<split>/<score>`` each), ``log``."""
    _check_keys(file, "figure", figure, {"label": str, "x": dict, "y": list}, {"log": bool})
    for row, value in figure["x"].items():
        _check_name(file, "figure.x", "row", row, rows)
        _check_kind(file, f"figure.x.{row}", value, float)
    for column in figure["y"]:
        split, _, score = str(column).partition("/")
        _check_name(file, "figure.y", "split", split, SPLITS)
        _check_name(file, "figure.y", "score", score, SCORES)


def _check_kind(file: Path, where: str, value: Any, kind: type) -> None:
    fits = type(value) in (kind, int) if kind is float else type(value) is kind
    if not fits or (kind is int and value < 1) or (kind is float and not abs(value) < inf):  # nan is none
        raise UserError(f"{_place(file, where)}: found {short(value)}, expected {KINDS[kind]}")


def _check_options(file: Path, where: str, options: Any) -> None:
    """Checks that something may be options of the command line, by their names."""
    _check_kind(file, where, options, dict)
    for name in options:
        if not isinstance(name, str):
            raise UserError(f"{_place(file, where)}: found {name!r} as a name, expected that of an option")


def _check_keys(file: Path, where: str, value: Any, needed: Kinds, optional: Kinds) -> None:
    """Checks that something has keys, those that are needed, and no unknown ones, each with a value of its kind."""
    place, keys = _place(file, where), {**needed, **optional}
    if not isinstance(value, dict):
        raise UserError(f"{place}: found {type(value).__name__}, expected keys {', '.join(sorted(keys))}")
    for wrong, what in ((set(value) - {*keys}, "unknown"), ({*needed} - set(value), "missing")):
        if wrong:
            key = min(map(str, wrong))
            raise UserError(f"{place}: key {key!r} is {what}; keys are {', '.join(sorted(keys))}")
    for key, one in value.items():
        _check_kind(file, f"{where}.{key}".lstrip("."), one, keys[key])


def _check_name(file: Path, where: str, what: str, name: Any, names: Iterable[str]) -> None:
    """Checks that a name is among those there are; an error names the nearest."""
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise UserError(f"{_place(file, where)}: no {what} {name!r}; {hint}")


def _place(file: Path, where: str) -> str:
    return f"{file}, {where}" if where else str(file)
