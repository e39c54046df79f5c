"""Reading text files, JSON lines and CSV, and the pictures they name; errors name file, line and field."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .parquet import DataError, Refuse, Row, short, stop
from .records import Picture


def read_lines(file: Path, columns: Iterable[str], refuse: Refuse = stop) -> list[Row]:
    """Reads a ``.jsonl`` or ``.json`` file (one object a line) or a ``.csv`` file (with a header).

    Args:
        file: UTF-8 text.
        columns: what must be there: as a column of a CSV file, and in every object of a JSON file.
        refuse: told of rows that cannot be read.

    Returns:
        Rows that know their line; empty lines are left out, and so are empty cells of a CSV file.

    Raises:
        DataError: if the file or a column of a CSV file is missing, or no row is left.
    """
    text = read_text(file, "give another file")
    read = _csv if file.suffix.lower() == ".csv" else _json
    rows = read(file, text, list(columns), refuse)
    if not rows:
        raise DataError(f"{file}: holds no readable row; add one")
    return rows


def read_text(file: Path, remedy: str) -> str:
    """Text of a file. Bytes that are no UTF-8 become lone surrogates, which ``Row.text`` refuses where they stand.

    Args:
        file: UTF-8, with or without byte order mark.
        remedy: what to do if it cannot be read, for the message.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error


def _json(file: Path, text: str, columns: list[str], refuse: Refuse) -> list[Row]:
    rows = []
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for place, (number, line) in enumerate(lines):
        row = Row({}, f"{file}, line {number}", place)
        try:
            rows.append(_object(row, line, columns))
        except DataError as error:
            refuse(error)
    return rows


def _object(row: Row, line: str, columns: list[str]) -> Row:
    try:
        values = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{row.where}: not JSON ({error}); write one object a line, or remove the line") from error
    if not isinstance(values, dict):
        raise DataError(f"{row.where}: found {short(values)}, expected an object; write one object a line")
    missing = [c for c in columns if c not in values]
    if missing:
        raise DataError(f"{row.where}: field {missing[0]!r} is missing; found {', '.join(values)}; add the field")
    return Row(values, row.where, row.place)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of whose fields none may be lost because another has its name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return values


def _csv(file: Path, text: str, columns: list[str], refuse: Refuse) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, header = [], next(reader, [])
    header = [name.strip() for name in header]
    if any("\ud800" <= letter <= "\udfff" for name in header for letter in name):
        raise DataError(f"{file}, line 1: not UTF-8 text; save the file in UTF-8")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"{file}: column {twice[0]!r} occurs twice; rename or remove one of them")
    missing = [c for c in columns if c not in header]
    if missing:
        raise DataError(
            f"{file}: column {missing[0]!r} is missing; found {', '.join(header) or 'none'}; add the column"
        )
    start, place = reader.line_num + 1, 0
    try:
        for cells in reader:
            where, start = f"{file}, line {start}", reader.line_num + 1
            place += bool(cells)
            if len(cells) == len(header):
                found_cells = {name: c for name, c in zip(header, cells, strict=True) if c.strip()}
                rows.append(Row(found_cells, where, place - 1))
            elif cells:
                found = f"{where}: found {len(cells)} cells, expected {len(header)}"
                refuse(DataError(f"{found}; quote cells that hold a comma or a line break"))
    except csv.Error as error:
        large = "field larger" in str(error)
        remedy = "close a quote that is left open, or shorten the cell" if large else "mend the quotes"
        raise DataError(f"{file}, line {start}: not CSV ({error}); {remedy}") from error
    return rows


def picture_beside(row: Row, column: str, folder: Path, known: dict[str, Picture]) -> Picture:
    """The image whose path is in a cell, checked to be whole.

    Args:
        row: what names it.
        column: where the path is.
        folder: where paths start; they may not lead out of it.
        known: pictures read so far, by path; added to.

    Raises:
        DataError: if the path leads out of the folder, or there is no image.
    """
    path = row.text(column).strip()
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise row.error(column, f"{path!r} leads out of {folder}", "put the image there and write its relative path")
    if path not in known:
        file = folder / path
        try:
            data = file.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise row.error(column, f"{str(file)!r} cannot be read ({reason})", "mend the path or add it") from error
        picture = Picture(data, f"{row.where}, column {column!r}: {file}")
        try:
            picture.verify()
        except Exception as error:
            raise DataError(str(error)) from error
        known[path] = picture.shared()
    return known[path]
