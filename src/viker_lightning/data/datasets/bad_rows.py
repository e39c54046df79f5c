"""Rows that are not as they must be: the first one is an error, or all of them are left out, noted and listed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from viker_lightning.errors import DataError
from viker_lightning.storage.files import replacing

from .reading.row import Row

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Read = TypeVar("Read")


class BadRows:
    """What is done about bad rows of a dataset.

    Args:
        root: of the dataset, for messages.
        skip: whether bad rows are left out; else the first one is an error.

    Attributes:
        skipped: file, row and reason of every row left out.
    """

    def __init__(self, root: str, skip: bool) -> None:
        self.root, self.skip = root, skip
        self.skipped: list[str] = []

    def handle(self, error: DataError) -> None:
        """Raises the error of a bad row, or notes it in ``skipped``."""
        if not self.skip:
            raise error
        if str(error) not in self.skipped:
            self.skipped.append(str(error))

    def read_each(self, items: Iterable[Item], read: Callable[[Item], Read]) -> list[Read]:
        """Reads rows, or what was made of them, one by one, leaving out the bad ones."""
        results = []
        for item in items:
            try:
                results.append(read(item))
            except DataError as error:
                self.handle(error)
        return results

    def by_id(self, rows: Iterable[Row], column: str = "ID") -> dict[str, Row]:
        """Rows by the ID of a person in a column; bad are those without one, and those whose ID came before."""
        by_id: dict[str, Row] = {}

        def add(row: Row) -> None:
            key = row.name(column)
            if key in by_id:
                first = by_id[key].where
                raise row.error(column, f"ID {key!r} occurs twice (first in {first})", "keep one of the rows")
            by_id[key] = row

        self.read_each(rows, add)
        return by_id

    @contextmanager
    def reported(self, trainer: Trainer | None) -> Iterator[None]:
        """Says which rows are skipped within it, and lists all of them in :func:`skipped_file`.

        Raises:
            DataError: naming a file or folder that the system does not let be read.
        """
        file, before = skipped_file(trainer), len(self.skipped)
        try:
            yield
        except OSError as error:
            name = f"{error.filename or self.root}: cannot be read ({error.strerror or error})"
            raise DataError(f"{name}; make it readable, or give another") from error
        if new := self.skipped[before:]:
            if file is not None:
                with replacing(file) as temporary:
                    temporary.write_text("".join(f"{line}\n" for line in self.skipped), "utf-8", "backslashreplace")
            listed = file or "the datamodule's `skipped`"
            log.warning("%s: %d bad rows skipped, all listed in %s; the first: %s", self.root, len(new), listed, new[0])


def skipped_file(trainer: Trainer | None) -> Path | None:
    """Where skipped rows are listed; ``None`` without a trainer, and on all processes but the first."""
    if trainer is None or not trainer.is_global_zero:
        return None
    command = trainer.state.fn
    suffix = "" if command in (None, TrainerFn.FITTING) else f"-{command.value}"
    return Path(trainer.default_root_dir) / f"skipped{suffix}.txt"


def remove_earlier_list(trainer: Trainer | None) -> None:
    """Removes the list of what an earlier run in the same folder skipped."""
    if (file := skipped_file(trainer)) is not None:
        file.unlink(missing_ok=True)
