"""Rows of the UMU-Bench schema as questions, with errors that name the cell."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.datasets.reading.row import Row
from viker_lightning.errors import short

TRAINED = {"image": "MM_QA", "text": "UM_QA"}
"""Columns with training questions, by modality."""

TASKS = ("Classify", "Cloze", "Generation")
KEYS = {"image": ("muitimodal", "multimodal"), "text": ("unimodal",)}
"""What a task's questions are found under, by modality; the first is how the published rows spell it."""


def training(row: Row, modality: str) -> tuple[VQA, ...]:
    """The training questions of a modality, each once.

    Raises:
        DataError: naming the cell that is wrong.
    """
    column = TRAINED[modality]
    cell = _parsed(row, column)
    questions, answers = (cell.get(key) for key in ("question", "answer"))
    if not isinstance(questions, dict) or not isinstance(answers, dict) or not questions:
        raise row.error(column, f"found {short(cell)}", "write {'question': {KEY: TEXT}, 'answer': {KEY: TEXT}}")
    unmatched = sorted(map(str, questions.keys() ^ answers.keys()))
    if unmatched:
        raise row.error(column, f"{unmatched[0]!r} has only a question or only an answer", "give it both")
    texts = [(_text(row, column, key, questions), _text(row, column, key, answers)) for key in questions]
    return tuple(dict.fromkeys(VQA(*pair) for pair in texts))


def image_group(row: Row, split: Split, modality: str) -> ImageGroup:
    """An evaluation row.

    Args:
        row: ID, image and the columns of :data:`TASKS`; a task may be null.
        split: what it evaluates.
        modality: ``image`` or ``text``.

    Raises:
        DataError: naming the cell that is wrong.
    """
    return ImageGroup(
        row.text("ID"),
        row.picture("image") if modality == "image" else None,
        split,
        tuple(VQA(*_pair(row, "Generation", *item)) for item in _items(row, "Generation", modality)),
        _choices(row, modality),
        tuple(_cloze(*_pair(row, "Cloze", *item)) for item in _items(row, "Cloze", modality)),
    )


def _parsed(row: Row, column: str) -> dict[str, Any]:
    """A cell that holds a dictionary as JSON or as Python writes it; nothing in it is ever run."""
    text = row.text(column)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # a backslash in a text
                value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            found = f"{short(text)} is no dictionary ({type(error).__name__})"
            raise row.error(column, found, "write it as JSON") from error
    if not isinstance(value, dict):
        raise row.error(column, f"found {short(value)}, expected a dictionary", "write it as JSON")
    return value


def _text(row: Row, column: str, at: str, values: dict[str, Any], key: str | None = None) -> str:
    """A text of a dictionary; ``at`` is where it is, ``key`` its name if that is not ``at``."""
    value = values.get(at if key is None else key)
    place = f"{column}[{at!r}]" if key is None else f"{column}[{at!r}][{key!r}]"
    return Row({place: value}, row.where).text(place).strip()


def _items(row: Row, column: str, modality: str) -> list[tuple[str, dict[str, Any]]]:
    """Questions of a task with their keys; none where the cell is null.

    Those asked in both modalities come first, in the order of the text-only ones, so that a number means the same
    question in both.
    """
    if row.get(column) is None:
        return []
    cell = _parsed(row, column)
    name = next((key for key in KEYS[modality] if key in cell), None)
    if name is None:
        raise row.error(column, f"found {short(list(cell))}", f"add {' or '.join(map(repr, KEYS[modality]))}")
    items = cell[name]
    if not isinstance(items, dict) or not all(isinstance(item, dict) for item in items.values()):
        raise row.error(column, f"{name!r} is {short(items)}", "write {KEY: {'question': TEXT, 'answer': TEXT}}")
    shown, told = (_either(cell, keys) for keys in KEYS.values())
    if shown.keys() - told.keys() and told.keys() - shown.keys():
        found = f"{min(map(str, shown.keys() - told.keys()))!r} is asked with image only, another question in text only"
        raise row.error(column, found, "give the same question the same key in both")
    both = [key for key in told if key in shown]
    return [(key, items[key]) for key in [*both, *(key for key in items if key not in both)]]


def _either(cell: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The dictionary under the first of some keys that has one; empty if none has."""
    return next((cell[key] for key in keys if isinstance(cell.get(key), dict)), {})


def _pair(row: Row, column: str, key: str, item: dict[str, Any]) -> tuple[str, str]:
    return _text(row, column, key, item, "question"), _text(row, column, key, item, "answer")


def _cloze(question: str, answer: str) -> Cloze:
    """A blank of any length becomes ``__``; the full stop after an answer is not part of it."""
    return Cloze(re.sub(r"_{2,}", "__", question), answer.removesuffix(".") or answer)


def _choices(row: Row, modality: str) -> tuple[MultipleChoice, ...]:
    items = _items(row, "Classify", modality)
    text_only = dict(_items(row, "Classify", "text")) if any(not item.get("answer") for _, item in items) else {}
    return tuple(_choice(row, key, text_only.get(key, {}) | _filled(item)) for key, item in items)


def _filled(item: dict[str, Any]) -> dict[str, Any]:
    """An item without an empty answer: the letter of the text-only question counts instead, as when published."""
    return item if item.get("answer") else {key: value for key, value in item.items() if key != "answer"}


def _choice(row: Row, key: str, item: dict[str, Any]) -> MultipleChoice:
    given = item.get("options")
    options = {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else {}
    if len(options) < 2:
        found = f"{key!r} has the options {short(given)}"
        raise row.error("Classify", found, "write {LETTER: TEXT} with at least two")
    texts = [_text(row, f"Classify[{key!r}]", letter, options) for letter in options]
    question, answer = _pair(row, "Classify", key, item)
    letter = answer.partition(".")[0].strip()
    if letter in options:
        return MultipleChoice(question, tuple(texts), list(options).index(letter))
    if answer in texts:
        return MultipleChoice(question, tuple(texts), texts.index(answer))
    raise row.error("Classify", f"the answer {answer!r} of {key!r} is not one of {list(options)}", "name an option")
