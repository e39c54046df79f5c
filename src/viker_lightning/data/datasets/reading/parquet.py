"""Reading published parquet folders, with errors that name file, row and column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from viker_lightning.errors import DataError

from .row import HandleBadRow, Row

ROWS = 32
"""Rows read at a time: images are copied out of them, so that a table of images is never in memory as a whole."""


def read_rows(
    folder: Path, columns: Iterable[str], handle: HandleBadRow, optional: Iterable[str] = (), empty: str = ""
) -> list[Row]:
    """Reads all parquet shards of a config folder.

    Args:
        folder: holds ``*.parquet``.
        columns: columns that must be there.
        handle: gets the errors of rows that cannot be read.
        optional: columns read where they are there.
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
            for first, batch in _batches(shard, chosen):
                numbers = [i for i in range(first, first + len(batch)) if wanted is None or i in wanted]
                rows += _rows(batch, first, shard, dict(enumerate(numbers, start=count)), handle)
                count += len(numbers)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{shard}: not a readable parquet file ({reason}); download or write it again") from error
    pa.default_memory_pool().release_unused()
    return rows


def _batches(shard: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """A few rows at a time, with the number of the first one."""
    first = 0
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            yield first, pa.Table.from_batches([batch])
            first += len(batch)


def _without_image(shard: Path, column: str) -> set[int]:
    """Numbers of the rows whose image is null, or a struct without bytes."""
    without: set[int] = set()
    for first, batch in _batches(shard, [column]):
        images = batch.column(column).combine_chunks()
        if pa.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
            images = pc.struct_field(images, "bytes")  # null, too, where the struct is
        without |= {first + i for i, missing in enumerate(pc.is_null(images).to_pylist()) if missing}
    return without


def _rows(table: pa.Table, first: int, shard: Path, numbers: dict[int, int], handle: HandleBadRow) -> list[Row]:
    """Rows of a batch that begins with row ``first`` of its shard: those of the numbers, by their place."""
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
                handle(error)
        return rows


def _cell(row: pa.Table, column: str, where: Row) -> Any:
    try:
        return row.column(column).to_pylist()[0]
    except UnicodeDecodeError as error:
        raise where.error(column, f"not UTF-8 text ({error.reason})", "save it in UTF-8") from error
