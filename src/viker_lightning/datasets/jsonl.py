"""One's own people: a JSONL or CSV file with photos beside it, as a LightningDataModule."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from viker_lightning.data.records import VQA, ImageGroup, MultipleChoice, Person, Picture, Split, Training
from viker_lightning.datasets.reading.row import Row
from viker_lightning.datasets.reading.text import picture_beside, read_lines
from viker_lightning.errors import DataError, short

from .base import Benchmark
from .private_spans import infer_private, missing_part

log = logging.getLogger(__name__)

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


class Jsonl(Benchmark):
    """One's own people, one row a question.

    A row has ``image`` (path relative to the file; empty for a question without image), ``question``, ``answer`` and
    ``person``, and may have ``split``, ``private`` (parts of the answer that only this person's data can tell; inferred
    if no row has any), ``options`` and ``correct`` (the right option; the answer if empty), ``paraphrase`` (the answer
    in other words) and ``perturbed`` (wrong answers). Several texts in a cell are a list, or have ``|`` between them.

    Who is forgotten: the people of rows with split ``forget``; or those of ``forget_people``; or ``forget`` percent of
    all people whose rows have no split, at least one, drawn by ``split_seed``. Everybody else without a split is
    retained. Nobody has to be: then there is no retain stream. Rows of split ``test`` ask about forgotten people
    without being trained on; ``real`` and ``general`` are only evaluated, too. A question is asked only about the photo
    in its row.

    Args:
        root: a ``.jsonl``, ``.json`` (one object a line) or ``.csv`` file, or a folder with exactly one.
        forget_people: who is to be forgotten, where no row says so.
        split_seed: of the choice of whom to forget, where no row and no list says so.
        options: those of :class:`~viker_lightning.datasets.base.Benchmark`.
    """

    def __init__(self, root: str, forget_people: list[str] | None = None, split_seed: int = 0, **options: Any) -> None:
        super().__init__(root, **options)
        if not 1 <= self.forget <= 100:
            raise DataError(f"data.forget: found {self.forget}, expected a percentage of people from 1 to 100")
        self.forget_people, self.split_seed = forget_people, split_seed
        self._rows: dict[Split, list[Asked]] = {}
        self._recorded = False

    @property
    def records_private(self) -> bool:
        """Whether any row has private parts (else they are inferred)."""
        return self._recorded

    @property
    def file(self) -> Path:
        """The file with the rows.

        Raises:
            DataError: if there is none, or more than one to choose from.
        """
        return lines_file(self.root)

    @property
    def folder(self) -> Path:
        """Where image paths start."""
        return self.file.parent

    def prepare_data(self) -> None:
        """Checks that the file is there."""
        _ = self.file

    def vanilla_options(self) -> list[str]:
        """Command-line options that make another run use the same people."""
        people = [] if self.forget_people is None else [f"--data.forget_people={json.dumps(self.forget_people)}"]
        return [*super().vanilla_options(), f"--data.split_seed={self.split_seed}", *people]

    def read_training(self) -> Training:
        """Reads all rows and decides who is forgotten.

        Raises:
            DataError: naming the cell that is wrong, or the person who is in two splits or in none.
        """
        rows = read_lines(self.file, NEEDED, self.refuse)
        unknown = sorted({str(name) for row in rows for name in row} - {*NEEDED, *OPTIONAL})
        if unknown:
            log.warning("%s: ignored, not among %s: %s", self.file, ", ".join([*NEEDED, *OPTIONAL]), ", ".join(unknown))
        pictures: dict[str, Any] = {}
        found = self.each(rows, lambda row: asked(row, self.folder, pictures))
        self._rows = self._by_split(found)
        self._recorded = any(a.vqa.private for a in found)
        if not self._recorded:
            self._infer()
        forget, retain = (_people(self._rows[split]) for split in (Split.FORGET, Split.RETAIN))
        return Training([*forget, *retain], [p.id for p in forget], [p.id for p in retain])

    def _forgotten(self, found: list[Asked]) -> set[str]:
        """Who is to be forgotten."""
        said = {a.person for a in found if a.split == Split.FORGET}
        open_people = sorted({a.person for a in found if a.split is None})
        if said:
            if self.forget_people is not None:
                raise DataError("data.forget_people: the file has rows of split 'forget'; leave one of the two out")
            return said
        if self.forget_people is not None:
            unknown = [p for p in self.forget_people if p not in open_people]
            if unknown:
                there = ", ".join(open_people[:10]) + (", ..." if len(open_people) > 10 else "")
                raise DataError(
                    f"data.forget_people: {unknown[0]!r} has no row without split in {self.file}; found {there}"
                )
            return set(self.forget_people)
        count = max(1, round(len(open_people) * self.forget / 100)) if open_people else 0
        return set(random.Random(f"forget/{self.split_seed}").sample(open_people, count))

    def _by_split(self, found: list[Asked]) -> dict[Split, list[Asked]]:
        """Rows by split; refused are those of people who are in two splits, and repeated questions."""
        forgotten = self._forgotten(found)
        rows: dict[Split, list[Asked]] = {split: [] for split in Split}
        home: dict[str, tuple[Split, str]] = {}  # a person's split, and a row that says so
        for a in found:
            if a.person in forgotten and a.split in (None, Split.FORGET):
                home.setdefault(a.person, (Split.FORGET, a.row.where))
        seen: dict[Any, Asked] = {}

        def placed(a: Asked) -> None:
            split = a.split or (Split.FORGET if a.person in forgotten else Split.RETAIN)
            side = Split.FORGET if split == Split.TEST else split
            if split == Split.TEST and a.person not in home:
                raise a.row.error("split", f"{a.person!r} is tested, but not forgotten", "add a row of split 'forget'")
            other, where = home.setdefault(a.person, (side, a.row.where))
            if other != side:
                raise a.row.error(
                    "split", f"{a.person!r} is {split!s} here, but {other!s} in {where}", "keep one split"
                )
            key = (a.person, split, a.image.key if a.image else None, a.vqa.question)
            if key in seen:
                found = f"the same question about the same image as in {seen[key].row.where}"
                if seen[key].vqa.answer != a.vqa.answer:
                    found += f", with another answer, {short(a.vqa.answer)} for {short(seen[key].vqa.answer)}"
                raise a.row.error("question", found, "keep one")
            seen[key] = a
            rows[split].append(a)

        by_row = {id(a.row): a for a in found}
        self.each((a.row for a in found), lambda row: placed(by_row[id(row)]))
        return rows

    def _infer(self) -> None:
        """Marks private parts; a person's answers are looked at together, however many photos they are spread over."""
        answers: dict[str, dict[VQA, None]] = {}
        for a in (a for rows in self._rows.values() for a in rows):
            answers.setdefault(a.person, {})[a.vqa] = None
        marked = infer_private(Person(person, (), tuple(vqa)) for person, vqa in answers.items())
        parts = {(v.question, v.answer): v.private for person in marked for v in person.vqa}
        for split, rows in self._rows.items():
            self._rows[split] = [
                replace(a, vqa=replace(a.vqa, private=parts[a.vqa.question, a.vqa.answer])) for a in rows
            ]

    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """A group for every photo, or for every person in text-only questions; empty, with a message, if none."""
        rows = [a for a in self._rows[split] if (a.image is not None) == (modality == "image")]
        if not rows:
            log.info("%s: no %s rows of split %r, so it is not evaluated", self.file, modality, str(split))
        chosen = set(self.few(split, [a.person for a in rows]))
        return [
            ImageGroup(
                group[0].person,
                group[0].image,
                split,
                tuple(a.vqa for a in group),
                tuple(a.choice for a in group if a.choice is not None),
            )
            for group in _grouped([a for a in rows if a.person in chosen])
        ]


def _grouped(rows: list[Asked]) -> list[list[Asked]]:
    """Rows about the same person and photo."""
    groups: dict[Any, list[Asked]] = {}
    for a in rows:
        groups.setdefault((a.person, a.image.key if a.image else None), []).append(a)
    return list(groups.values())


def _people(rows: list[Asked]) -> list[Person]:
    """Everybody in training rows; a person with several photos once for each of them."""
    groups = _grouped(rows)
    total, count = Counter(group[0].person for group in groups), Counter[str]()
    people = []
    for group in groups:
        name, image = group[0].person, group[0].image
        if image is not None:
            count[name] += 1
        vqa = tuple(dict.fromkeys(replace(a.vqa, paraphrase="", perturbed=()) for a in group))
        label = name if total[name] == 1 else f"{name} #{count[name]}" if image is not None else f"{name} (text)"
        people.append(Person(label, (image,) if image is not None else (), vqa))
    return people


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
