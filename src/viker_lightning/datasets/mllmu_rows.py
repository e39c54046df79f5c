"""Rows of the MLLMU-Bench schema as questions, with errors that name the cell."""

from __future__ import annotations

import json
import random
from typing import Any

from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.datasets.reading.row import Row, visible
from viker_lightning.errors import short

from .private_spans import missing_part

TASKS = ("ID", "Classification_Task", "Generation_Task", "Mask_Task")
MODALITIES = {
    "image": ("Image_Textual_Questions", "Image_Textual"),
    "text": ("Pure_Text_Questions", "Pure_Text"),
}


def image_group(row: Row, split: Split, modality: str, seed: int) -> ImageGroup:
    """An evaluation row.

    Args:
        row: columns as in :data:`TASKS`, and ``image`` (``images`` for the test split, of which one is drawn).
        split: what it evaluates.
        modality: ``image`` or ``text``.
        seed: of the choice of the test photo.

    Raises:
        DataError: naming the cell that is wrong.
    """
    choices_key, kind = MODALITIES[modality]
    image = None
    if modality == "image":
        photos = row.pictures("images") if split == Split.TEST else (row.picture("image"),)
        image = random.Random(f"{seed}/{row.text('ID')}").choice(photos)
    choices = row["Classification_Task"] or {}
    if not isinstance(choices, dict):
        raise row.error("Classification_Task", f"found {short(choices)}, expected a struct", "see the schema")
    if choices and choices_key not in choices:
        raise row.error(
            "Classification_Task", f"found {short(list(choices))}, without {choices_key!r}", "add the field"
        )
    if not any((*choices.values(), row["Generation_Task"], row["Mask_Task"])):
        raise row.error("Generation_Task", "no task asks anything", "add a question or remove the row")
    return ImageGroup(
        row.text("ID"),
        image,
        split,
        tuple(_vqa(row, "Generation_Task", item, "Ground_Truth") for item in _of_type(row, "Generation_Task", kind)),
        tuple(
            _choice(row, item)
            for item in Row({"Classification_Task": choices.get(choices_key)}, row.where).structs("Classification_Task")
        ),
        tuple(Cloze(*_pair(row, "Mask_Task", item, "Ground_Truth")) for item in _of_type(row, "Mask_Task", kind)),
    )


def _pair(row: Row, column: str, item: dict[str, Any], answer: str) -> tuple[str, str]:
    return _text(row, column, "Question", item.get("Question")), _text(row, column, answer, item.get(answer))


def _text(row: Row, column: str, name: str, value: Any) -> str:
    """A text within a cell, called so."""
    if not isinstance(value, str) or not visible(value):
        raise row.error(column, f"{name} is {short(value)}", "give it a text or remove the item")
    return Row({f"{column}, {name}": value}, row.where).text(f"{column}, {name}")


def _vqa(row: Row, column: str, item: dict[str, Any], answer: str) -> VQA:
    vqa = VQA(*_pair(row, column, item, answer))
    parts = item.get("Private") or []
    if not isinstance(parts, list) or not all(isinstance(part, str) and visible(part) for part in parts):
        raise row.error(column, f"Private is {short(parts)}", "write a list of texts that occur in the answer")
    missing = missing_part(vqa.answer, parts)
    if missing is not None:
        raise row.error(
            column, f"Private {missing!r} does not occur in the answer {vqa.answer!r}", "copy it from there"
        )
    return VQA(vqa.question, vqa.answer, tuple(parts))


def _of_type(row: Row, column: str, kind: str) -> list[dict[str, Any]]:
    known = [types for _, types in MODALITIES.values()]
    for item in row.structs(column):
        if item.get("Type") not in known:
            raise row.error(column, f"Type is {item.get('Type')!r}", f"write one of {', '.join(known)}")
    return [item for item in row.structs(column) if item["Type"] == kind]


def metadata(row: Row) -> tuple[VQA, ...]:
    """The training questions of an ``ft_Data`` row, each once.

    Raises:
        DataError: naming the cell that is wrong.
    """
    try:
        items = json.loads(row.text("metadata"))
    except (ValueError, RecursionError) as error:
        raise row.error("metadata", f"not JSON ({error})", "write a list of {ID, Question, Answer}") from error
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise row.error("metadata", f"found {short(items)}", "write a non-empty list of {ID, Question, Answer}")
    strangers = [item["ID"] for item in items if item.get("ID", row["ID"]) != row["ID"]]
    if strangers:
        found = f"a question of ID {short(strangers[0])} in the row of {row['ID']!r}"
        raise row.error("metadata", found, "move it to its person, or mend the ID")
    return tuple(dict.fromkeys(_vqa(row, "metadata", item, "Answer") for item in items))


def _choice(row: Row, item: dict[str, Any]) -> MultipleChoice:
    given = item.get("Options")
    options = {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else {}
    for key, option in options.items():
        _text(row, "Classification_Task", f"option {key}", option)
    right = item.get("Correct_Answer")
    if right not in options:
        raise row.error(
            "Classification_Task", f"Correct_Answer {right!r} is not one of {list(options)}", "name an option"
        )
    if len(options) < 2:
        raise row.error("Classification_Task", f"the only option is {list(options)}", "give at least two options")
    question = _text(row, "Classification_Task", "Question", item.get("Question"))
    return MultipleChoice(question, tuple(options.values()), list(options).index(right))
