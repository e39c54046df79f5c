"""A row of a file that knows where it stands: cells are read with errors that name file, row and column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unicodedata import category

from viker_lightning.data.records import Picture
from viker_lightning.errors import DataError, UserError, short

LONGEST = 2**20
"""Most characters a text may have, and most bytes a line of a file: what is made of a text (tokens, words with their
places) takes up to a hundred times its room."""


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

    def is_empty(self, column: str) -> bool:
        """Whether a cell is missing or holds nothing."""
        value = self.get(column)
        return value is None or value == "" or value == []

    def text(self, column: str) -> str:
        """A non-empty string.

        Raises:
            DataError: if the cell holds anything else.
        """
        value = self.get(column)
        if not isinstance(value, str) or not is_visible(value):
            raise self.error(column, f"found {short(value)}, expected text", "fill it in or remove the row")
        if len(value) > LONGEST:
            raise self.error(column, f"a text of {len(value)} characters, expected at most {LONGEST}", "shorten it")
        if reason := not_utf8(value):
            raise self.error(column, f"not UTF-8 text ({reason})", "save it in UTF-8")
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


def is_visible(text: str) -> bool:
    """Whether there is anything to be seen in a text: not only spaces, control and zero-width characters."""
    return any(not letter.isspace() and category(letter) not in ("Cc", "Cf") for letter in text)


def not_utf8(text: str) -> str | None:
    """What is wrong with a text that UTF-8 cannot hold; ``None`` if it can.

    Bytes that were no UTF-8 are there as surrogates of their own; other ones come from escapes in JSON.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        letter = text[error.start]
        return "bytes of another encoding" if "\udc80" <= letter <= "\udcff" else f"{letter!r} is half a character"
    return None


def _numbered(column: str, values: list[Any]) -> Iterable[tuple[str, Any]]:
    return ((f"{column}[{i}]", value) for i, value in enumerate(values))


HandleBadRow = Callable[[DataError], None]
"""What is done about a bad row: raise its error, or note it and read on."""


def raise_error(error: DataError) -> None:
    """Raises the error: what is done about a bad row unless a dataset says otherwise."""
    raise error


def rows_by_id(rows: Iterable[Row], column: str = "ID", handle: HandleBadRow = raise_error) -> dict[str, Row]:
    """Rows by ID.

    Args:
        rows: with an ID.
        column: where the ID is.
        handle: gets the errors of rows without an ID, and of those whose ID came before.

    Raises:
        DataError: by default, if an ID is missing or occurs twice.
    """
    by_id: dict[str, Row] = {}
    for row in rows:
        try:
            key = row.text(column)
            if key in by_id:
                first = by_id[key].where
                raise row.error(column, f"ID {key!r} occurs twice (first in {first})", "keep one of the rows")
            by_id[key] = row
        except DataError as error:
            handle(error)
    return by_id


def check_not_forgotten(row: Row, forget: Mapping[str, Row]) -> None:
    """Makes sure that a row of the retain set is of nobody in the forget set.

    Args:
        row: with a column ``ID``.
        forget: rows of the forget set by ID.

    Raises:
        DataError: if its ID is among them.
    """
    if row["ID"] in forget:
        found = f"ID {row['ID']!r} is in the forget set, too ({forget[row['ID']].where})"
        raise row.error("ID", found, "keep one of the rows")
