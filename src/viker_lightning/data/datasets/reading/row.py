"""A row of a file that knows where it stands: cells are read with errors that name file, row and column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unicodedata import category

from viker_lightning.data.records import Picture, person_name
from viker_lightning.errors import DataError, UserError, short

LONGEST = 2**20
"""Most characters a text may have, and most bytes a line of a file: what is made of a text (tokens, words with their
places) takes up to a hundred times its room."""


class Row(dict[str, Any]):
    """A row that knows where it came from; what reads a cell raises a :class:`DataError` if it holds anything else.

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
        """A non-empty string."""
        value = self.get(column)
        if not isinstance(value, str) or not is_visible(value):
            raise self.error(column, f"found {short(value)}, expected text", "fill it in or remove the row")
        if len(value) > LONGEST:
            raise self.error(column, f"a text of {len(value)} characters, expected at most {LONGEST}", "shorten it")
        if reason := not_utf8(value):
            raise self.error(column, f"not UTF-8 text ({reason})", "save it in UTF-8")
        return value

    def name(self, column: str) -> str:
        """Who a row is about: a non-empty string that does not end as the ID of a part of a person does."""
        name = self.text(column)
        if (rest := person_name(name.strip())) != name.strip():
            found = f"found {short(name)}, which would be taken for a part of {short(rest)}"
            raise self.error(column, found, "end no name with '#' and a number, '(text)' or '(kept)'")
        return name

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of non-empty strings; at least one."""
        entries = self._entries(column, "texts", "fill it in")
        return tuple(Row({entry: value}, self.where).text(entry) for entry, value in entries)

    def any_texts(self, column: str, separator: str | None = None) -> tuple[str, ...]:
        """A list of texts, or one text, cut at a separator if there is one; none where the cell is empty."""
        if self.is_empty(column):
            return ()
        if not isinstance(self[column], str):
            return self.texts(column)
        text = self.text(column)
        parts = [text] if separator is None else [part.strip() for part in text.split(separator)]
        return Row({column: parts}, self.where).texts(column)

    def structs(self, column: str) -> list[dict[str, Any]]:
        """A list of structs; none where the cell is empty."""
        values = self.get(column)
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.error(column, f"found {short(values)}, expected a list of structs", "see the schema")
        return values

    def picture(self, column: str) -> Picture:
        """The image of a ``{bytes, path}`` cell, checked to be whole."""
        return self._picture(column, self.get(column))

    def pictures(self, column: str) -> tuple[Picture, ...]:
        """The images of a list cell; at least one."""
        return tuple(self._picture(entry, value) for entry, value in self._entries(column, "images", "add an image"))

    def _entries(self, column: str, kind: str, remedy: str) -> list[tuple[str, Any]]:
        """Entries of a list, each with the name of its place."""
        values = self.get(column)
        if not isinstance(values, list) or not values:
            raise self.error(column, f"found {short(values)}, expected a list of {kind}", f"{remedy} or remove the row")
        return [(f"{column}[{i}]", value) for i, value in enumerate(values)]

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


HandleBadRow = Callable[[DataError], None]
"""What is done about a bad row: raise its error, or note it and read on."""


def check_not_forgotten(row: Row, forget: Mapping[str, Row]) -> None:
    """Refuses a row of the retain set whose ID is in the forget set."""
    if row["ID"] in forget:
        found = f"ID {row['ID']!r} is in the forget set, too ({forget[row['ID']].where})"
        raise row.error("ID", found, "keep one of the rows")
