"""UMU-Bench, or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import ast
import json
import logging
import re
import warnings
from collections.abc import Iterable
from typing import Any

from typing_extensions import override

from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Person, Split, Training
from viker_lightning.errors import DataError, short

from .base import Benchmark
from .private_spans import infer_in_groups, infer_private_spans
from .reading.parquet import read_rows
from .reading.row import Row, check_not_forgotten

log = logging.getLogger(__name__)

TRAINED = {"image": "MM_QA", "text": "UM_QA"}
"""Columns with training questions, by modality."""

TASKS = ("Classify", "Cloze", "Generation")
KEYS = {"image": ("muitimodal", "multimodal"), "text": ("unimodal",)}
"""What a task's questions are found under, by modality; the first is how the published rows spell it."""


class UMUBench(Benchmark):
    """UMU-Bench: the same knowledge asked with a photo and without, to see whether both are forgotten.

    ``root`` is a folder, or a dataset id on the hub, with a parquet folder for every config: ``forget_N`` and
    ``retain_(100-N)`` (whose union is ``Full_Set``, which is not read) and, optionally, ``Real_Person_Set``. Cells with
    questions are strings that hold a dictionary, as JSON or as Python writes it.

    Trained on: ``MM_QA`` about the photo, and ``UM_QA`` without any, as a second person ``ID (text)``. Evaluated:
    ``Generation``, ``Classify`` and ``Cloze`` of ``forget_N``, ``retain_(100-N)`` and, as split ``real``,
    ``Real_Person_Set``: what is under ``muitimodal`` (or ``multimodal``) with ``modality: image``, what is under
    ``unimodal`` with ``text``; ``both`` is what the benchmark is about. There is no split ``test`` or ``general``. The
    private spans of answers are inferred. The right option is that of the question's own answer; the published code
    takes the letter of the text-only question, which here counts only where there is no answer. All options are those
    of :class:`~viker_lightning.data.datasets.base.Benchmark`; ``forget`` is 5, 10 or 15.
    """

    paired = True

    def _split_names(self) -> tuple[str, str]:
        return f"forget_{self.forget}", f"retain_{100 - self.forget}"

    @override
    def read_training(self) -> Training:
        """Reads who is forgotten and who is retained."""
        forget_config, retain_config = self._split_names()
        if not (self.folder / forget_config).is_dir():
            there = ", ".join(sorted(p.name for p in self.folder.glob("forget_*"))) or "none found"
            raise DataError(f"{self.folder}: no split {forget_config!r}; set data.forget to one of: {there}")
        columns = ["image", *TRAINED.values()]
        forget, retain = (self._read_by_id(config, columns) for config in (forget_config, retain_config))

        def read_retained(row: Row) -> tuple[Person, Person]:
            check_not_forgotten(row, forget)
            return _read_people(row)

        pairs = [
            self.bad_rows.read_each(forget.values(), _read_people),
            self.bad_rows.read_each(retain.values(), read_retained),
        ]
        forgotten, retained = ([person.id for pair in side for person in pair] for side in pairs)
        # Apart, since what an answer says with and without a photo is no other person's word.
        with_photo, text_only = (infer_private_spans([pair[i] for side in pairs for pair in side]) for i in (0, 1))
        people = [person for pair in zip(with_photo, text_only, strict=True) for person in pair]
        return Training(people, forgotten, retained)

    def _read_by_id(self, config: str, columns: Iterable[str]) -> dict[str, Row]:
        rows = read_rows(self.folder / config, ["ID", *columns], self.bad_rows.handle)
        return self.bad_rows.by_id(rows)

    @override
    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if the folder does not hold it."""
        forget, retain = self._split_names()
        config = {Split.FORGET: forget, Split.RETAIN: retain, Split.REAL: "Real_Person_Set"}.get(split)
        if config is None or not (self.folder / config).is_dir():
            missing = f"no folder {config}" if config else "UMU-Bench has no such split"
            log.info("%s: %s, so the split %r is not evaluated", self.folder, missing, str(split))
            return []
        rows = self._read_by_id(config, ["image", *TASKS])
        ids = {Split.FORGET: self.forget_ids, Split.RETAIN: self.retain_ids}.get(split, list(rows))
        chosen = self.limit_people(split, [key for key in rows if key in set(ids)])
        groups = self.bad_rows.read_each((rows[key] for key in chosen), lambda row: image_group(row, split, modality))
        return infer_in_groups(groups, [p for p in self.people() if bool(p.images) == (modality == "image")])


def _read_people(row: Row) -> tuple[Person, Person]:
    """A row twice: with the photo and its questions, and without any photo."""
    with_photo = Person(row.text("ID"), (row.picture("image"),), training_questions(row, "image"))
    return with_photo, Person(f"{with_photo.id} (text)", (), training_questions(row, "text"))


def training_questions(row: Row, modality: str) -> tuple[VQA, ...]:
    """The training questions of a modality, each once."""
    column = TRAINED[modality]
    cell = _parse_dictionary(row, column)
    questions, answers = (cell.get(key) for key in ("question", "answer"))
    if not isinstance(questions, dict) or not isinstance(answers, dict) or not questions:
        raise row.error(column, f"found {short(cell)}", "write {'question': {KEY: TEXT}, 'answer': {KEY: TEXT}}")
    unmatched = sorted(map(str, questions.keys() ^ answers.keys()))
    if unmatched:
        raise row.error(column, f"{unmatched[0]!r} has only a question or only an answer", "give it both")
    texts = [(_text(row, column, key, questions), _text(row, column, key, answers)) for key in questions]
    return tuple(dict.fromkeys(VQA(*pair) for pair in texts))


def image_group(row: Row, split: Split, modality: str) -> ImageGroup:
    """An evaluation row: ID, image and the columns of :data:`TASKS`; a task may be null."""
    return ImageGroup(
        row.text("ID"),
        row.picture("image") if modality == "image" else None,
        split,
        tuple(VQA(*_pair(row, "Generation", *item)) for item in _items(row, "Generation", modality)),
        _choices(row, modality),
        tuple(_cloze(*_pair(row, "Cloze", *item)) for item in _items(row, "Cloze", modality)),
    )


def _parse_dictionary(row: Row, column: str) -> dict[str, Any]:
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
    cell = _parse_dictionary(row, column)
    name = next((key for key in KEYS[modality] if key in cell), None)
    if name is None:
        raise row.error(column, f"found {short(list(cell))}", f"add {' or '.join(map(repr, KEYS[modality]))}")
    items = cell[name]
    if not isinstance(items, dict) or not all(isinstance(item, dict) for item in items.values()):
        raise row.error(column, f"{name!r} is {short(items)}", "write {KEY: {'question': TEXT, 'answer': TEXT}}")
    with_image, text_only = (_either(cell, keys) for keys in KEYS.values())
    unpaired = with_image.keys() - text_only.keys()
    if unpaired and text_only.keys() - with_image.keys():
        found = f"{min(map(str, unpaired))!r} is asked with image only, another question in text only"
        raise row.error(column, found, "give the same question the same key in both")
    both = [key for key in text_only if key in with_image]
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
    choices = []
    for key, item in items:  # where there is no answer, that of the text-only question counts, as when published
        filled = {name: value for name, value in item.items() if value or name != "answer"}
        choices.append(_choice(row, key, text_only.get(key, {}) | filled))
    return tuple(choices)


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
