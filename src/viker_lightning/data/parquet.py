"""Reading published parquet folders, with errors that name file, row and column."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from viker_lightning.errors import UserError

from .records import Picture


class DataError(UserError):
    """Something is wrong with the data; the message names file, row and column."""


class Row(dict[str, Any]):
    """A row that knows where it came from."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def error(self, column: str, found: str, remedy: str) -> DataError:
        """An error about one cell."""
        return DataError(f"{self.where}, column {column!r}: {found}; {remedy}")

    def text(self, column: str) -> str:
        """A non-empty string.

        Raises:
            DataError: if the cell holds anything else.
        """
        value = self.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.error(column, f"found {value!r}, expected text", "fill it in or remove the row")
        return value

    def picture(self, column: str) -> Picture:
        """The image of a ``{bytes, path}`` cell, checked to be decodable in its header.

        Raises:
            DataError: if there are no image bytes.
        """
        return self._picture(column, self.get(column))

    def pictures(self, column: str) -> tuple[Picture, ...]:
        """The images of a list cell; at least one.

        Raises:
            DataError: if the list is empty or an entry is not an image.
        """
        values = self.get(column)
        if not isinstance(values, list) or not values:
            raise self.error(column, f"found {values!r}, expected a list of images", "add an image or remove the row")
        return tuple(self._picture(f"{column}[{i}]", value) for i, value in enumerate(values))

    def _picture(self, column: str, value: Any) -> Picture:
        data = value.get("bytes") if isinstance(value, dict) else None
        if not data:
            raise self.error(column, "no image bytes", "store the encoded image in the field 'bytes'")
        picture = Picture(data, f"{self.where}, column {column!r}")
        try:
            picture.verify()
        except UserError as error:
            raise DataError(str(error)) from error
        return picture


def read_rows(folder: Path, columns: Iterable[str], optional: Iterable[str] = ()) -> list[Row]:
    """Reads all parquet shards of a config folder.

    Args:
        folder: holds ``*.parquet``.
        columns: columns that must be there.
        optional: columns read where they are there.

    Raises:
        DataError: if folder, shards or columns are missing, or a shard cannot be read.
    """
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        siblings = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        raise DataError(f"{folder}: no parquet file here; folders beside it: {', '.join(siblings) or 'none'}")
    rows = []
    for shard in shards:
        try:
            names = pq.read_schema(shard).names
            missing = [c for c in columns if c not in names]
            if missing:
                raise DataError(f"{shard}: column {missing[0]!r} is missing; found {', '.join(names)}; add the column")
            table = pq.read_table(shard, columns=[*columns, *(c for c in optional if c in names)])
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{shard}: not a readable parquet file ({error}); download or write it again") from error
        rows += [Row(values, f"{shard}, row {i}") for i, values in enumerate(table.to_pylist())]
    return rows


def row_of(rows: Iterable[Row], column: str = "ID") -> dict[str, Row]:
    """Rows by ID.

    Raises:
        DataError: if an ID occurs twice.
    """
    found: dict[str, Row] = {}
    for row in rows:
        key = row.text(column)
        if key in found:
            raise row.error(column, f"ID {key!r} occurs twice (first in {found[key].where})", "keep one of the rows")
        found[key] = row
    return found
