"""FIUBench (arXiv 2411.03554), or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from viker_lightning.data.records import VQA, ImageGroup, Person, Picture, Split, Training
from viker_lightning.datasets.reading.row import Refuse, Row, row_of, stop
from viker_lightning.datasets.reading.text import picture_beside, read_lines, read_text
from viker_lightning.errors import DataError, short

from .base import Benchmark
from .private_spans import infer_private

log = logging.getLogger(__name__)

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


class FIUBench(Benchmark):
    """FIUBench: one drawn face and twenty questions to every fictitious person.

    ``root`` is a folder, or a dataset id on the hub, with ``full.json`` (one person a line, or a list of them),
    ``split.json`` (an object of lists of ``unique_id``: ``forget1``, ``forget5``, ``forget10``, ``retain5``,
    ``retain15``) and the images, whose paths may start with the ``./dataset/`` of the published rows.

    Trained on: the ``question`` and ``answer`` of everybody. Forgotten is ``forgetN``; retained, as in the published
    code, is who is in no forget list at all, so the people of the other forget lists are known to the vanilla and the
    gold model, but in no stream and no split. Evaluated: ``forget`` and ``retain`` are asked as in training, ``test``
    asks the forget set in every paraphrased wording. There is one photo a person and no text-only question, hence
    nothing with ``modality: text``. The private parts of an answer are its ``keywords``, as far as the answer holds
    them as whole words in any case; they are inferred if no answer holds any. Texts are asked as they are stored (the
    published code lower-cases all but their first letter).

    Args:
        root: see above.
        first: how many rows of ``full.json`` are the benchmark, in its order; the published file holds more than the
            400 that are used. ``None`` is all.
        retain_list: whom to evaluate of those retained: ``retain5`` or ``retain15``; ``None`` is all of them.
        options: those of :class:`~viker_lightning.datasets.base.Benchmark`; ``forget`` is 1, 5 or 10.
    """

    tests_other_photos = False

    def __init__(self, root: str, first: int | None = 400, retain_list: str | None = "retain5", **options: Any) -> None:
        super().__init__(root, **options)
        if first is not None and first < 1:
            raise DataError(f"data.first: found {first}, expected at least 1, or null for all rows")
        self.first, self.retain_list = first, retain_list
        self._identities: dict[str, Identity] = {}
        self._later: set[str] = set()  # IDs of the rows that are not used
        self._lists: dict[str, list[Row]] = {}
        self._recorded = False

    @property
    def records_private(self) -> bool:
        """Whether any answer holds one of its keywords (else private parts are inferred)."""
        return self._recorded

    def vanilla_options(self) -> list[str]:
        """Command-line options that make another run use the same people."""
        return [*super().vanilla_options(), f"--data.first={'null' if self.first is None else self.first}"]

    def read_training(self) -> Training:
        """Reads ``full.json`` and ``split.json``.

        Raises:
            DataError: naming the cell, or the ID of a list that has no row.
        """
        self._lists = read_lists(self.folder / "split.json")
        name = f"forget{self.forget}"
        if name not in self._lists:
            there = ", ".join(key for key in self._lists if key.startswith("forget")) or "none found"
            raise DataError(f"{self.folder / 'split.json'}: no list {name!r}; set data.forget to one of: {there}")
        self._read_people()
        forget = [row["unique_id"] for row in self._listed(name)]
        listed = {
            str(row["unique_id"]) for key, rows in self._lists.items() if key.startswith("forget") for row in rows
        }
        found = self._identities.values()
        people = [Person(p.id, (p.picture,), tuple(_trained(vqa) for vqa in p.asked)) for p in found]
        return Training(people, forget, [p.id for p in people if p.id not in listed])

    def _read_people(self) -> None:
        rows = read_file(self.folder / "full.json", self.refuse)
        self._later = {str(row["unique_id"]) for row in rows[self.first :]} if self.first is not None else set()
        used = row_of(rows[: self.first], "unique_id", self.refuse)
        pictures: dict[str, Picture] = {}
        found = self.each(used.values(), lambda row: identity(row, self.folder, pictures))
        self._recorded = any(vqa.private for p in found for vqa in p.asked)
        if not self._recorded:
            marked = infer_private(Person(p.id, (), tuple(p.asked)) for p in found)
            found = [
                replace(p, asked=dict(zip(m.vqa, p.asked.values(), strict=True)))
                for p, m in zip(found, marked, strict=True)
            ]
        self._identities = {p.id: p for p in found}

    def _listed(self, name: str) -> list[Row]:
        """Rows of a list; those of people who are not used are left out, as in the published code."""
        rows = row_of(self._lists[name], "unique_id", self.refuse)
        left_out = self._later - set(self._identities)
        if left_out & set(rows):
            log.info("%s: some of %r are not among the first %s people", self.root, name, self.first)

        def checked(row: Row) -> Row:
            if row["unique_id"] not in self._identities:
                found = f"ID {row['unique_id']!r} has no row in full.json"
                raise row.error("unique_id", found, "add it there or drop it")
            return row

        return self.each((row for key, row in rows.items() if key not in left_out), checked)

    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if there is no such split."""
        ids = {Split.FORGET: self.forget_ids, Split.TEST: self.forget_ids, Split.RETAIN: self.retain_ids}.get(split)
        if ids is None or modality == "text":
            log.info(
                "%s: FIUBench has no %s questions of split %r, so it is not evaluated", self.root, modality, str(split)
            )
            return []
        if split == Split.RETAIN:
            ids = self._evaluated()
        groups = []
        for person in (self._identities[key] for key in self.few(split, ids)):
            vqa = tuple(person.asked)
            if split == Split.TEST:
                vqa = tuple(replace(vqa, question=other) for vqa, others in person.asked.items() for other in others)
            groups += [ImageGroup(person.id, person.picture, split, vqa)] if vqa else []
        return groups

    def _evaluated(self) -> list[str]:
        """Whom to evaluate of those retained."""
        if self.retain_list is None:
            return self.retain_ids
        if self.retain_list not in self._lists:
            there = ", ".join(key for key in self._lists if key.startswith("retain")) or "none found"
            raise DataError(
                f"{self.folder / 'split.json'}: no list {self.retain_list!r}; set data.retain_list to null (everybody "
                f"retained) or one of: {there}"
            )
        kept = set(self.retain_ids)

        def checked(row: Row) -> str:
            key = row.text("unique_id")
            if key not in kept:
                raise row.error("unique_id", f"ID {key!r} is in a forget list, too", "keep one of the two")
            return key

        return self.each(self._listed(self.retain_list), checked)


def _trained(vqa: VQA) -> VQA:
    return replace(vqa, paraphrase="", perturbed=())


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
