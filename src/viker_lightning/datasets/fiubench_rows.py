"""Rows of the FIUBench schema as people, with errors that name the cell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from viker_lightning.data.records import VQA, Picture
from viker_lightning.datasets.reading.row import Refuse, Row, stop
from viker_lightning.datasets.reading.text import picture_beside, read_lines, read_text
from viker_lightning.errors import DataError, short

COLUMNS = ("unique_id", "image_path", "qa_list")


@dataclass(frozen=True)
class Identity:
    """A person of ``full.json``.

    Attributes:
        id: the row's ``unique_id``.
        picture: the only photo.
        asked: every question with its other wordings.
    """

    id: str
    picture: Picture
    asked: Mapping[VQA, tuple[str, ...]]


def read_file(file: Path, refuse: Refuse = stop) -> list[Row]:
    """Reads ``full.json``: one object a line, as published, or a list of objects.

    Raises:
        DataError: if the file cannot be read or holds no row.
    """
    text = read_text(file, "put FIUBench's file there")
    if not text.lstrip().startswith("["):
        return read_lines(file, COLUMNS, refuse)
    rows = []
    for number, values in enumerate(_json(file, text)):
        missing = [c for c in COLUMNS if not isinstance(values, dict) or c not in values]
        if missing:
            found = f"{file}, row {number}: found {short(values)}, expected an object with {', '.join(COLUMNS)}"
            refuse(DataError(f"{found}; add {missing[0]!r}"))
        else:
            rows.append(Row(values, f"{file}, row {number}"))
    if not rows:
        raise DataError(f"{file}: holds no readable row; add one")
    return rows


def read_lists(file: Path) -> dict[str, list[Row]]:
    """Reads ``split.json``, an object of lists of IDs, as rows with a column ``unique_id``.

    Raises:
        DataError: if the file cannot be read or holds anything else.
    """
    lists = _json(file, read_text(file, "put FIUBench's split lists there"))
    if not isinstance(lists, dict) or not all(isinstance(ids, list) for ids in lists.values()):
        raise DataError(f"{file}: found {short(lists)}, expected an object of lists; write {{'forget5': [ID, ...]}}")
    return {
        name: [Row({"unique_id": key}, f"{file}, {name}[{i}]") for i, key in enumerate(ids)]
        for name, ids in lists.items()
    }


def _json(file: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); download or write it again") from error


def identity(row: Row, folder: Path, known: dict[str, Picture]) -> Identity:
    """Reads a row of ``full.json``.

    Args:
        row: columns as in :data:`COLUMNS`.
        folder: where image paths start. Those published start one folder above, ``./dataset/SFHQ/...``, the data being
            meant to lie in ``dataset``; a first ``dataset`` that the folder does not hold is therefore left out.
        known: pictures read so far, by path; added to.

    Raises:
        DataError: naming the cell that is wrong.
    """
    parts = PurePosixPath(row.text("image_path").strip()).parts
    if parts[:1] == ("dataset",) and not (folder / "dataset").is_dir():
        parts = parts[1:]
    path = Row({"image_path": str(PurePosixPath(*parts))}, row.where)
    items = row.structs("qa_list")
    if not items:
        raise row.error("qa_list", "no question", "add one or remove the row")
    asked: dict[VQA, tuple[str, ...]] = {}
    for i, item in enumerate(items):
        cells = {f"qa_list[{i}].{name}": value for name, value in item.items()}
        vqa, wordings = _question(Row(cells, row.where), f"qa_list[{i}]")
        asked[vqa] = tuple(dict.fromkeys((*asked.get(vqa, ()), *wordings)))
    return Identity(row.text("unique_id"), picture_beside(path, "image_path", folder, known), asked)


def _question(row: Row, at: str) -> tuple[VQA, tuple[str, ...]]:
    """A question and its other wordings."""
    question, answer = row.text(f"{at}.question"), row.text(f"{at}.answer")
    paraphrase = _texts(row, f"{at}.paraphrased_answer")[:1]
    wrong = tuple(dict.fromkeys(_texts(row, f"{at}.perturbed_answer")))
    private = tuple(dict.fromkeys(found for word in _texts(row, f"{at}.keywords") if (found := _told(answer, word))))
    return VQA(question, answer, private, "".join(paraphrase), wrong), _texts(row, f"{at}.paraphrased_question")


def _texts(row: Row, column: str) -> tuple[str, ...]:
    """A text or a list of them; none where the cell is empty."""
    value = row.get(column)
    if value is None or value == "" or value == []:
        return ()
    return (row.text(column),) if isinstance(value, str) else row.texts(column)


def _told(answer: str, keyword: str) -> str:
    """A keyword as the answer writes it, as whole words in any case; empty where it does not occur."""
    match = re.search(rf"(?<!\w){re.escape(keyword.strip())}(?!\w)", answer, re.IGNORECASE)
    return match[0] if match else ""
