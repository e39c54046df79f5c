"""Reading published parquet folders, with errors that name file, row and column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import category

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from viker_lightning.errors import UserError

from .records import Picture

LONGEST = 2**20
"""Most characters a text may have, and most bytes a line of a file: what is made of a text (tokens, words with their
places) takes up to a hundred times its room."""

ROWS = 32
"""Rows read at a time: images are copied out of them, so that a table of images is never in memory as a whole."""


class DataError(UserError):
    """Something is wrong with the data; the message names file, row and column."""


class Row(dict[str, Any]):
    """A row that knows where it came from.

    Args:
        values: by column.
        where: file and row, for messages.
        place: how many rows come before it, those that could not be read among them.
    """

    def __init__(self, values: dict[str, Any], where: str, place: int = 0) -> None:
        super().__init__(values)
        self.where, self.place = where, place

    def error(self, column: str, found: str, remedy: str) -> DataError:
        """An error about one cell."""
        return DataError(f"{self.where}, column {column!r}: {found}; {remedy}")

    def text(self, column: str) -> str:
        """A non-empty string.

        Raises:
            DataError: if the cell holds anything else.
        """
        value = self.get(column)
        if not isinstance(value, str) or not visible(value):
            raise self.error(column, f"found {short(value)}, expected text", "fill it in or remove the row")
        if len(value) > LONGEST:
            raise self.error(column, f"a text of {len(value)} characters, expected at most {LONGEST}", "shorten it")
        if half := halves(value):
            raise self.error(column, f"not UTF-8 text ({half})", "save it in UTF-8")
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of non-empty strings; at least one.

        Raises:
            DataError: if the cell holds anything else.
        """
        values = self.get(column)
        if not isinstance(values, list) or not values:
            raise self.error(column, f"found {short(values)}, expected a list of texts", "fill it in or remove the row")
        return tuple(Row({entry: v}, self.where).text(entry) for entry, v in _numbered(column, values))

    def structs(self, column: str) -> list[dict[str, Any]]:
        """A list of structs; none where the cell is empty.

        Raises:
            DataError: if the cell holds anything else.
        """
        values = self.get(column)
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.error(column, f"found {short(values)}, expected a list of structs", "see the schema")
        return values

    def picture(self, column: str) -> Picture:
        """The image of a ``{bytes, path}`` cell, checked to be whole.

        Raises:
            DataError: if there are no bytes of a whole image.
        """
        return self._picture(column, self.get(column))

    def pictures(self, column: str) -> tuple[Picture, ...]:
        """The images of a list cell; at least one.

        Raises:
            DataError: if the list is empty or an entry is not an image.
        """
        values = self.get(column)
        if not isinstance(values, list) or not values:
            raise self.error(
                column, f"found {short(values)}, expected a list of images", "add an image or remove the row"
            )
        return tuple(self._picture(entry, value) for entry, value in _numbered(column, values))

    def _picture(self, column: str, value: Any) -> Picture:
        data = value.get("bytes") if isinstance(value, dict) else None
        if not data or not isinstance(data, bytes):
            raise self.error(column, "no image bytes", "store the encoded image in the field 'bytes'")
        picture = Picture(data, f"{self.where}, column {column!r}")
        try:
            picture.verify()
        except UserError as error:
            raise DataError(str(error)) from error
        return picture.shared()


def short(value: Any) -> str:
    """How a wrong value is shown in a message: its beginning, in one line."""
    try:
        shown = repr(value[:60] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__} too large to show"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def visible(text: str) -> bool:
    """Whether there is anything to be seen in a text: not only spaces, control and zero-width characters."""
    return any(not letter.isspace() and category(letter) not in ("Cc", "Cf") for letter in text)


def halves(text: str) -> str | None:
    """What is wrong with a text that UTF-8 cannot hold; ``None`` if it can.

    Bytes that were no UTF-8 are there as surrogates of their own; other ones come from escapes in JSON.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = text[error.start]
        return "bytes of another encoding" if "\udc80" <= found <= "\udcff" else f"{found!r} is half a character"
    return None


def _numbered(column: str, values: list[Any]) -> Iterable[tuple[str, Any]]:
    return ((f"{column}[{i}]", value) for i, value in enumerate(values))


Refuse = Callable[[DataError], None]
"""What is done about a bad row: raise the error, or note it and go on."""


def stop(error: DataError) -> None:
    """Raises the error."""
    raise error


def read_rows(
    folder: Path, columns: Iterable[str], optional: Iterable[str] = (), refuse: Refuse = stop, empty: str = ""
) -> list[Row]:
    """Reads all parquet shards of a config folder.

    Args:
        folder: holds ``*.parquet``.
        columns: columns that must be there.
        optional: columns read where they are there.
        refuse: told of rows that cannot be read.
        empty: a column of images; only rows without one are read, and without this column.

    Raises:
        DataError: if folder, shards or columns are missing, or a shard cannot be read.
    """
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        siblings = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        raise DataError(f"{folder}: no parquet file here; folders beside it: {', '.join(siblings) or 'none'}")
    rows: list[Row] = []
    count = 0
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard}: a folder, pipe or device; give a parquet file")
        try:
            names = pq.read_schema(shard).names
            missing = [c for c in [*columns, *([empty] if empty else [])] if c not in names]
            if missing:
                raise DataError(f"{shard}: column {missing[0]!r} is missing; found {', '.join(names)}; add the column")
            chosen = [*columns, *(c for c in optional if c in names)]
            wanted = _without_image(shard, empty) if empty else None
            for first, part in _parts(shard, chosen):
                numbers = [i for i in range(first, first + len(part)) if wanted is None or i in wanted]
                rows += _listed(part, first, shard, dict(enumerate(numbers, start=count)), refuse)
                count += len(numbers)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{shard}: not a readable parquet file ({error}); download or write it again") from error
    pa.default_memory_pool().release_unused()
    return rows


def _parts(shard: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """A few rows at a time, each part with the number of its first row."""
    first = 0
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            yield first, pa.Table.from_batches([batch])
            first += len(batch)


def _without_image(shard: Path, column: str) -> set[int]:
    """Numbers of the rows whose image is null, or a struct without bytes."""
    found: set[int] = set()
    for first, part in _parts(shard, [column]):
        images = part.column(column).combine_chunks()
        if pa.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
            images = pc.struct_field(images, "bytes")  # null, too, where the struct is
        found |= {first + i for i, missing in enumerate(pc.is_null(images).to_pylist()) if missing}
    return found


def _listed(table: pa.Table, first: int, shard: Path, numbers: dict[int, int], refuse: Refuse) -> list[Row]:
    """Rows of a part of a shard that begins with row ``first``: those of the numbers, by their place."""
    try:
        values = table.to_pylist()
        return [Row(values[i - first], f"{shard}, row {i}", place) for place, i in numbers.items()]
    except UnicodeDecodeError:  # some text is not UTF-8: find out where
        rows = []
        for place, i in numbers.items():
            row, where = table.slice(i - first, 1), Row({}, f"{shard}, row {i}")
            try:
                rows.append(Row({name: _cell(row, name, where) for name in table.column_names}, where.where, place))
            except DataError as error:
                refuse(error)
        return rows


def _cell(row: pa.Table, column: str, where: Row) -> Any:
    try:
        return row.column(column).to_pylist()[0]
    except UnicodeDecodeError as error:
        raise where.error(column, f"not UTF-8 text ({error.reason})", "save it in UTF-8") from error


def row_of(rows: Iterable[Row], column: str = "ID", refuse: Refuse = stop) -> dict[str, Row]:
    """Rows by ID.

    Args:
        rows: with an ID.
        column: where the ID is.
        refuse: told of rows without an ID, and of those whose ID came before.

    Raises:
        DataError: by default, if an ID is missing or occurs twice.
    """
    found: dict[str, Row] = {}
    for row in rows:
        try:
            key = row.text(column)
            if key in found:
                raise row.error(
                    column, f"ID {key!r} occurs twice (first in {found[key].where})", "keep one of the rows"
                )
            found[key] = row
        except DataError as error:
            refuse(error)
    return found
