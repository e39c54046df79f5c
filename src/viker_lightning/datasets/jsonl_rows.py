"""Rows of a user's own file as questions, with errors that name the cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viker_lightning.data.records import VQA, MultipleChoice, Picture, Split
from viker_lightning.datasets.reading.row import Row
from viker_lightning.datasets.reading.text import picture_beside
from viker_lightning.errors import DataError

from .private_spans import missing_part

SUFFIXES = (".jsonl", ".json", ".csv")
NEEDED = ("image", "question", "answer", "person")
OPTIONAL = ("split", "private", "options", "correct", "paraphrase", "perturbed")


@dataclass(frozen=True)
class Asked:
    """A row: one question about one person.

    Attributes:
        person: who it is about.
        split: where it belongs; ``None`` if that is decided by a list or a percentage.
        image: the photo; ``None`` for a text-only question.
        vqa: question and answer.
        choice: the same question with options, where there are any.
        row: what it was read from.
    """

    person: str
    split: Split | None
    image: Picture | None
    vqa: VQA
    choice: MultipleChoice | None
    row: Row


def asked(row: Row, folder: Path, known: dict[str, Picture]) -> Asked:
    """Reads a row.

    Args:
        row: cells named as in :data:`NEEDED` and :data:`OPTIONAL`; several texts are a list, or one text with ``|``
            between them.
        folder: where image paths start.
        known: pictures read so far, by path; added to.

    Raises:
        DataError: naming the cell that is wrong.
    """
    question, answer, person = row.text("question"), row.text("answer"), row.text("person").strip()
    private, perturbed = several(row, "private"), several(row, "perturbed")
    missing = missing_part(answer, private)
    if missing is not None:
        raise row.error("private", f"{missing!r} does not occur in the answer {answer!r}", "copy it from there")
    paraphrase = "" if is_empty(row, "paraphrase") else row.text("paraphrase")
    vqa = VQA(question, answer, private, paraphrase, perturbed)
    image = None if is_empty(row, "image") else picture_beside(row, "image", folder, known)
    return Asked(person, _split(row), image, vqa, _choice(row, question, answer), row)


def lines_file(root: str) -> Path:
    """The file with the rows: ``root`` itself, or the only one in that folder.

    Raises:
        DataError: if there is none, or more than one to choose from.
    """
    path = Path(root)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return path
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if len(found) != 1:
        there = ", ".join(p.name for p in found) or "none"
        raise DataError(f"data.root: {root!r} must be a {', '.join(SUFFIXES)} file or hold one; found {there}")
    return found[0]


def is_empty(row: Row, column: str) -> bool:
    """Whether a cell is missing or holds nothing."""
    value: Any = row.get(column)
    return value is None or value == "" or value == []


def several(row: Row, column: str) -> tuple[str, ...]:
    """Texts in a cell: a list of them, or one text with ``|`` between them; none where the cell is empty."""
    if is_empty(row, column):
        return ()
    if isinstance(row[column], str):
        parts: list[Any] = [part.strip() for part in row.text(column).split("|")]
        return Row({column: parts}, row.where).texts(column)
    return row.texts(column)


def _split(row: Row) -> Split | None:
    if is_empty(row, "split"):
        return None
    name = row.text("split").strip()
    if name not in list(Split):
        raise row.error("split", f"found {name!r}", f"write one of {', '.join(Split)}, or nothing")
    return Split(name)


def _choice(row: Row, question: str, answer: str) -> MultipleChoice | None:
    options = several(row, "options")
    if not options:
        if not is_empty(row, "correct"):
            raise row.error("options", "empty, but there is a correct one", "fill in the options or empty 'correct'")
        return None
    if len(options) < 2 or len(set(options)) < len(options):
        raise row.error("options", f"found {list(options)}", "give at least two, each once")
    right = answer if is_empty(row, "correct") else row.text("correct").strip()
    if right not in options:
        found = f"the right one, {right!r}, is not among {list(options)}"
        raise row.error("options", found, "add it, or name another in 'correct'")
    return MultipleChoice(question, options, options.index(right))
