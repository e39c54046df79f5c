"""Reading text files, JSON lines and CSV, and the pictures they name; errors name file, line and field."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from viker_lightning.data.records import Picture
from viker_lightning.errors import DataError, short
from viker_lightning.storage.files import opened

from .row import LONGEST, HandleBadRow, Row, not_utf8


def read_lines(file: Path, columns: Iterable[str], handle: HandleBadRow) -> list[Row]:
    """Reads a ``.jsonl`` or ``.json`` file (one object a line) or a ``.csv`` file (with a header).

    Args:
        file: UTF-8 text.
        columns: what must be there: as a column of a CSV file, and in every object of a JSON file.
        handle: gets the errors of rows that cannot be read.

    Returns:
        Rows that know their line; empty lines are left out, and so are empty cells of a CSV file.

    Raises:
        DataError: if the file or a column of a CSV file is missing, or no row is left.
    """
    read = _read_csv if file.suffix.lower() == ".csv" else _read_json
    try:
        rows = read(file, list(columns), handle)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); give another file") from error
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
        with opened(file) as stream:
            data = stream.read()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
    _check_byte_order_mark(data, file)
    return _decode(data, str(file))


def _decode(data: bytes, where: str) -> str:
    """Bytes as text; NUL bytes, which no text holds, are refused."""
    if b"\0" in data:
        found = "not UTF-8 text, but NUL bytes: UTF-16 without a byte order mark, or a damaged or binary file"
        raise DataError(f"{where}: {found}; save it in UTF-8")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _check_byte_order_mark(data: bytes, file: Path) -> None:
    """Refuses a file that begins with the byte order mark of another encoding."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{file}: not UTF-8 text, but UTF-16 or UTF-32; save it in UTF-8")


def _lines(file: Path) -> Iterator[tuple[str, bytes | None]]:
    """Every line with where it is, ``None`` in place of one of more than :data:`LONGEST` bytes."""
    with opened(file) as stream:
        for number in itertools.count(1):
            line = stream.readline(LONGEST + 1)
            if not line:
                return
            if number == 1:
                _check_byte_order_mark(line, file)
            ended = len(line) <= LONGEST or line.endswith(b"\n")
            yield f"{file}, line {number}", line if ended else None
            while not ended:
                rest = stream.readline(LONGEST)
                ended = not rest or rest.endswith(b"\n")


def _decode_line(where: str, line: bytes | None) -> str:
    if line is None:
        raise DataError(f"{where}: more than {LONGEST} bytes; a row is one line, so break it or shorten its texts")
    return _decode(line, where)


def _read_json(file: Path, columns: list[str], handle: HandleBadRow) -> list[Row]:
    rows = []
    place = 0
    for where, line in _lines(file):
        if line is not None and not line.strip():
            continue
        try:
            rows.append(_parse_object(Row({}, where, place), _decode_line(where, line), columns))
        except DataError as error:
            handle(error)
        place += 1
    return rows


def _parse_object(row: Row, line: str, columns: list[str]) -> Row:
    try:
        values = json.loads(line, object_pairs_hook=unique_fields, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{row.where}: not JSON ({error}); write one object a line, or remove the line") from error
    if not isinstance(values, dict):
        raise DataError(f"{row.where}: found {short(values)}, expected an object; write one object a line")
    missing = [c for c in columns if c not in values]
    if missing:
        raise DataError(f"{row.where}: field {missing[0]!r} is missing; found {', '.join(values)}; add the field")
    if "\\ud" in line.lower() or not_utf8(line):
        for name, value in values.items():  # in fields that nobody asks for, too: they may be written again
            if reason := not_utf8(json.dumps({name: value}, ensure_ascii=False)):
                raise row.error(name, f"not UTF-8 text ({reason})", "save it in UTF-8")
    return Row(values, row.where, row.place)


def _finite(text: str) -> float:
    """A number that JSON can be written with again."""
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {short(text)} is too large")
    return value


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of whose fields none may be lost because another has its name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return values


def _read_csv(file: Path, columns: list[str], handle: HandleBadRow) -> list[Row]:
    lines = (io.StringIO(_decode_line(*line), newline="") for line in _lines(file))  # which ends them at a bare \r, too
    reader = csv.reader(itertools.chain.from_iterable(lines), strict=True)
    header = _check_header(next(reader, []), columns, file)
    rows, start, place = [], reader.line_num + 1, 0
    try:
        for cells in reader:
            where, start = f"{file}, line {start}", reader.line_num + 1
            place += bool(cells)
            if len(cells) == len(header):
                filled = {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}
                rows.append(Row(filled, where, place - 1))
            elif cells:
                found = f"{where}: found {len(cells)} cells, expected {len(header)}"
                handle(DataError(f"{found}; quote cells that hold a comma or a line break"))
    except csv.Error as error:
        large = "field larger" in str(error)
        remedy = "close a quote that is left open, or shorten the cell" if large else "fix the quotes"
        raise DataError(f"{file}, line {start}: not CSV ({error}); {remedy}") from error
    return rows


def _check_header(cells: list[str], columns: list[str], file: Path) -> list[str]:
    """The names of the columns of a CSV file, each there once and all that are needed."""
    header = [name.strip() for name in cells]
    if any("\ud800" <= letter <= "\udfff" for name in header for letter in name):
        raise DataError(f"{file}, line 1: not UTF-8 text; save the file in UTF-8")
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{file}: column {twice[0]!r} occurs twice; rename or remove one of them")
    if missing := [c for c in columns if c not in header]:
        found = ", ".join(header) or "none"
        raise DataError(f"{file}: column {missing[0]!r} is missing; found {found}; add the column")
    return header


def read_picture(row: Row, column: str, folder: Path, pictures: dict[str, Picture]) -> Picture:
    """The image whose path is in a cell, checked to be whole.

    Args:
        row: what names it.
        column: where the path is.
        folder: where paths start; they may not lead out of it.
        pictures: those read so far, by path; added to.

    Raises:
        DataError: if the path leads out of the folder, or there is no image.
    """
    path = row.text(column).strip()
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise row.error(column, f"{path!r} leads out of {folder}", "put the image there and write its relative path")
    if path not in pictures:
        file = folder / path
        try:
            with opened(file) as stream:
                data = stream.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise row.error(column, f"{str(file)!r} cannot be read ({reason})", "fix the path or add it") from error
        picture = Picture(data, f"{row.where}, column {column!r}: {file}")
        try:
            picture.verify()
        except Exception as error:
            raise DataError(str(error)) from error
        pictures[path] = picture.shared()
    return pictures[path]
