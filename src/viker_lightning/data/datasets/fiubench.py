"""FIUBench (arXiv 2411.03554), or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import override

from viker_lightning.data.records import VQA, ImageGroup, Person, Picture, Split, Training
from viker_lightning.errors import DataError, short

from .base import Benchmark
from .private_spans import infer_private_spans
from .reading.row import HandleBadRow, Row
from .reading.text_files import read_lines, read_picture, read_text

log = logging.getLogger(__name__)

COLUMNS = ("unique_id", "image_path", "qa_list")


Wordings = tuple[tuple[str, ...], ...]
"""Of each of a person's questions, the other ways to ask it."""


class FIUBench(Benchmark):
    """FIUBench: one drawn face and twenty questions to every fictitious person.

    ``root`` is a folder, or a dataset id on the hub, with ``full.json`` (one person a line, or a list of them),
    ``split.json`` (an object of lists of ``unique_id``: ``forget1``, ``forget5``, ``forget10``, ``retain5``,
    ``retain15``) and the images, whose paths may start with the ``./dataset/`` of the published rows.

    Trained on: the ``question`` and ``answer`` of everybody. Forgotten is ``forgetN``; retained, as in the published
    code, is who is in no forget list at all, so the people of the other forget lists are known to the vanilla and the
    gold model, but in no stream and no split. Evaluated: ``forget`` and ``retain`` are asked as in training, ``test``
    asks the forget set in every paraphrased wording. There is one photo a person and no text-only question, hence
    nothing with ``modality: text``. The private spans of an answer are its ``keywords``, as far as the answer holds
    them as whole words in any case; they are inferred if no answer holds any. Texts are asked as they are stored (the
    published code lower-cases all but their first letter).

    Args:
        root: see above.
        first: how many rows of ``full.json`` are the benchmark, in its order; the published file holds more than the
            400 that are used. ``None`` is all.
        retain_list: whom to evaluate of those retained: ``retain5`` or ``retain15``; ``None`` is all of them.
        options: those of :class:`~viker_lightning.data.datasets.base.Benchmark`; ``forget`` is 1, 5 or 10.
    """

    tests_other_photos = False

    def __init__(self, root: str, first: int | None = 400, retain_list: str | None = "retain5", **options: Any) -> None:
        super().__init__(root, **options)
        if first is not None and first < 1:
            raise DataError(f"data.first: found {first}, expected at least 1, or null for all rows")
        self.first, self.retain_list = first, retain_list
        self._identities: dict[str, tuple[Person, Wordings]] = {}
        self._unused: set[str] = set()  # IDs of the rows behind the first ones
        self._lists: dict[str, list[Row]] = {}

    @override
    def vanilla_options(self) -> list[str]:
        return [*super().vanilla_options(), f"--data.first={'null' if self.first is None else self.first}"]

    @override
    def read_training(self) -> Training:
        """Reads ``full.json`` and ``split.json``."""
        self._lists = read_lists(self.folder / "split.json")
        name = f"forget{self.forget}"
        if name not in self._lists:
            there = ", ".join(key for key in self._lists if key.startswith("forget")) or "none found"
            raise DataError(f"{self.folder / 'split.json'}: no list {name!r}; set data.forget to one of: {there}")
        self._identities = self._read_identities()
        forget = [row["unique_id"] for row in self._listed(name)]
        listed = {
            str(row["unique_id"]) for key, rows in self._lists.items() if key.startswith("forget") for row in rows
        }
        people = [
            replace(person, vqa=tuple(replace(vqa, paraphrase="", perturbed=()) for vqa in person.vqa))
            for person, _ in self._identities.values()
        ]
        return Training(people, forget, [p.id for p in people if p.id not in listed])

    def _read_identities(self) -> dict[str, tuple[Person, Wordings]]:
        rows = read_file(self.folder / "full.json", self.bad_rows.handle)
        self._unused = {str(row["unique_id"]) for row in rows[self.first :]} if self.first is not None else set()
        used = self.bad_rows.by_id(rows[: self.first], "unique_id")
        pictures: dict[str, Picture] = {}
        read = self.bad_rows.read_each(used.values(), lambda row: read_identity(row, self.folder, pictures))
        people, wordings = [person for person, _ in read], [others for _, others in read]
        self.records_private = any(vqa.private for person in people for vqa in person.vqa)
        if not self.records_private:
            people = infer_private_spans(people)
        return {person.id: (person, others) for person, others in zip(people, wordings, strict=True)}

    def _listed(self, name: str) -> list[Row]:
        """Rows of a list; those of people who are not used are left out, as in the published code."""
        rows = self.bad_rows.by_id(self._lists[name], "unique_id")
        left_out = self._unused - set(self._identities)
        if left_out & set(rows):
            log.info("%s: some of %r are not among the first %s people", self.root, name, self.first)

        def check(row: Row) -> Row:
            if row["unique_id"] not in self._identities:
                found = f"ID {row['unique_id']!r} has no row in full.json"
                raise row.error("unique_id", found, "add it there or drop it")
            return row

        return self.bad_rows.read_each((row for key, row in rows.items() if key not in left_out), check)

    @override
    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if there is no such split."""
        ids = {Split.FORGET: self.forget_ids, Split.TEST: self.forget_ids, Split.RETAIN: self.retain_ids}.get(split)
        if ids is None or modality == "text":
            log.info(
                "%s: FIUBench has no %s questions of split %r, so it is not evaluated", self.root, modality, str(split)
            )
            return []
        if split == Split.RETAIN:
            ids = self._retained_to_evaluate()
        groups = []
        for person, wordings in (self._identities[key] for key in self.limit_people(split, ids)):
            asked = person.vqa
            if split == Split.TEST:
                pairs = zip(person.vqa, wordings, strict=True)
                asked = tuple(replace(vqa, question=other) for vqa, others in pairs for other in others)
            groups += [ImageGroup(person.id, person.images[0], split, asked)] if asked else []
        return groups

    def _retained_to_evaluate(self) -> list[str]:
        if self.retain_list is None:
            return self.retain_ids
        if self.retain_list not in self._lists:
            there = ", ".join(key for key in self._lists if key.startswith("retain")) or "none found"
            raise DataError(
                f"{self.folder / 'split.json'}: no list {self.retain_list!r}; set data.retain_list to null (everybody "
                f"retained) or one of: {there}"
            )
        retained = set(self.retain_ids)

        def read_id(row: Row) -> str:
            key = row.text("unique_id")
            if key not in retained:
                raise row.error("unique_id", f"ID {key!r} is in a forget list, too", "keep one of the two")
            return key

        return self.bad_rows.read_each(self._listed(self.retain_list), read_id)


def read_file(file: Path, handle: HandleBadRow) -> list[Row]:
    """Reads ``full.json``: one object a line, as published, or a list of objects."""
    text = read_text(file, "put FIUBench's file there")
    if not text.lstrip().startswith("["):
        return read_lines(file, COLUMNS, handle)
    rows = []
    for number, values in enumerate(_parse_json(file, text)):
        missing = [c for c in COLUMNS if not isinstance(values, dict) or c not in values]
        if missing:
            found = f"{file}, row {number}: found {short(values)}, expected an object with {', '.join(COLUMNS)}"
            handle(DataError(f"{found}; add {missing[0]!r}"))
        else:
            rows.append(Row(values, f"{file}, row {number}"))
    if not rows:
        raise DataError(f"{file}: holds no readable row; add one")
    return rows


def read_lists(file: Path) -> dict[str, list[Row]]:
    """Reads ``split.json``, an object of lists of IDs, as rows with a column ``unique_id``."""
    lists = _parse_json(file, read_text(file, "put FIUBench's split lists there"))
    if not isinstance(lists, dict) or not all(isinstance(ids, list) for ids in lists.values()):
        raise DataError(f"{file}: found {short(lists)}, expected an object of lists; write {{'forget5': [ID, ...]}}")
    return {
        name: [Row({"unique_id": key}, f"{file}, {name}[{i}]") for i, key in enumerate(ids)]
        for name, ids in lists.items()
    }


def _parse_json(file: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); download or write it again") from error


def read_identity(row: Row, folder: Path, pictures: dict[str, Picture]) -> tuple[Person, Wordings]:
    """Reads a row of ``full.json``: a person with the only photo, and the wordings of the questions.

    Published image paths start one folder above, ``./dataset/SFHQ/...``, the data being meant to lie in ``dataset``; a
    first ``dataset`` that the folder does not hold is therefore left out.
    """
    parts = PurePosixPath(row.text("image_path").strip()).parts
    if parts[:1] == ("dataset",) and not (folder / "dataset").is_dir():
        parts = parts[1:]
    path = Row({"image_path": str(PurePosixPath(*parts))}, row.where)
    items = row.structs("qa_list")
    if not items:
        raise row.error("qa_list", "no question", "add one or remove the row")
    wordings: dict[VQA, tuple[str, ...]] = {}
    for i, item in enumerate(items):
        cells = {f"qa_list[{i}].{name}": value for name, value in item.items()}
        vqa, others = _question(Row(cells, row.where), f"qa_list[{i}]")
        wordings[vqa] = tuple(dict.fromkeys((*wordings.get(vqa, ()), *others)))
    person = Person(row.text("unique_id"), (read_picture(path, "image_path", folder, pictures),), tuple(wordings))
    return person, tuple(wordings.values())


def _question(row: Row, at: str) -> tuple[VQA, tuple[str, ...]]:
    """A question and its other wordings."""
    question, answer = row.text(f"{at}.question"), row.text(f"{at}.answer")
    paraphrase = row.any_texts(f"{at}.paraphrased_answer")[:1]
    wrong = tuple(dict.fromkeys(row.any_texts(f"{at}.perturbed_answer")))
    spans = (_span(answer, word) for word in row.any_texts(f"{at}.keywords"))
    private = tuple(dict.fromkeys(span for span in spans if span))
    return VQA(question, answer, private, "".join(paraphrase), wrong), row.any_texts(f"{at}.paraphrased_question")


def _span(answer: str, keyword: str) -> str:
    """A keyword as the answer writes it, as whole words in any case; empty where it does not occur."""
    match = re.search(rf"(?<!\w){re.escape(keyword.strip())}(?!\w)", answer, re.IGNORECASE)
    return match[0] if match else ""
