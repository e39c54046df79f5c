"""One's own people: a JSONL or CSV file with photos beside it, as a LightningDataModule."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from viker_lightning.data.records import VQA, ImageGroup, MultipleChoice, Person, Picture, Split, Training
from viker_lightning.errors import DataError, short

from .base import Benchmark
from .partial import kept_person
from .private_spans import check_private_spans, holds, infer_private_spans, spans_only_in
from .reading.row import Row
from .reading.text_files import read_lines, read_picture

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".json", ".csv")
NEEDED = ("image", "question", "answer", "person")
TOLD = ("private", "correction", "private_correction", "attributes")
OPTIONAL = ("split", "options", "correct", "paraphrase", "perturbed", *TOLD)


@dataclass(frozen=True)
class Question:
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


class OwnFile(Benchmark):
    """Rows of one file, with photos beside it."""

    @property
    def file(self) -> Path:
        """The file with the rows: ``root`` itself, or the only one in that folder."""
        path = Path(self.root)
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            return path
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else []
        if len(files) != 1:
            found = ", ".join(p.name for p in files) or "none"
            raise DataError(f"data.root: {self.root!r} must be a {', '.join(SUFFIXES)} file or hold one; found {found}")
        return files[0]

    @property
    @override
    def folder(self) -> Path:
        """Where image paths start."""
        return self.file.parent

    @override
    def prepare_data(self) -> None:
        """Checks that the file is there."""
        _ = self.file


class Jsonl(OwnFile):
    """One's own people, one row a question.

    A row has ``image`` (path relative to the file; empty for a question without image), ``question``, ``answer`` and
    ``person``, and may have ``split``, ``private`` (spans of the answer that only this person's data can tell; inferred
    if no row has any), ``options`` and ``correct`` (the right option; the answer if empty), ``paraphrase`` (the answer
    in other words), ``perturbed`` (wrong answers) and ``attributes`` (what about the person the answer tells, by which
    somebody can be forgotten in part). Several texts in a cell are a list, or have ``|`` between them.

    A row of somebody forgotten may have ``correction``, the truth in place of a false answer, and
    ``private_correction``, its private spans. Where these or ``private`` are empty, they are the words that only one of
    the two texts has.

    Who is forgotten: the people of rows with split ``forget``; or those of ``forget_people``; or ``forget`` percent of
    all people whose rows have no split, at least one, drawn by ``split_seed``. Everybody else without a split is
    retained. Nobody has to be: then there is no retain stream. Rows of split ``test`` ask about forgotten people
    without being trained on; ``kept`` is what stays known of them, and is retained; ``real`` and ``general`` are only
    evaluated, too. A question is asked only about the photo in its row.

    Args:
        root: a ``.jsonl``, ``.json`` (one object a line) or ``.csv`` file, or a folder with exactly one.
        forget_people: who is to be forgotten, where no row says so.
        split_seed: of the choice of whom to forget, where no row and no list says so.
        options: those of :class:`~viker_lightning.data.datasets.base.Benchmark`.
    """

    def __init__(self, root: str, forget_people: list[str] | None = None, split_seed: int = 0, **options: Any) -> None:
        super().__init__(root, **options)
        if not 1 <= self.forget <= 100:
            raise DataError(f"data.forget: found {self.forget}, expected a percentage of people from 1 to 100")
        self.forget_people, self.split_seed = forget_people, split_seed
        self._questions: dict[Split, list[Question]] = {}

    @override
    def vanilla_options(self) -> list[str]:
        people = [] if self.forget_people is None else [f"--data.forget_people={json.dumps(self.forget_people)}"]
        return [*super().vanilla_options(), f"--data.split_seed={self.split_seed}", *people]

    @override
    def read_training(self) -> Training:
        """Reads all rows and decides who is forgotten."""
        rows = read_lines(self.file, NEEDED, self.bad_rows.handle)
        unknown = sorted({str(name) for row in rows for name in row} - {*NEEDED, *OPTIONAL})
        if unknown:
            log.warning("%s: ignored, not among %s: %s", self.file, ", ".join([*NEEDED, *OPTIONAL]), ", ".join(unknown))
        pictures: dict[str, Picture] = {}
        questions = self.bad_rows.read_each(rows, lambda row: read_question(row, self.folder, pictures))
        self._questions = self._by_split(questions)
        self.records_private = any(not question.row.is_empty("private") for question in questions)
        if not self.records_private:
            self._questions = _with_inferred_spans(self._questions)
        forget, retain = (_people(self._questions[split]) for split in (Split.FORGET, Split.RETAIN))
        kept = [kept_person(person, person.vqa) for person in _people(self._questions[Split.KEPT])]
        if kept and self.attributes is not None:
            raise DataError("data.attributes: the file has rows of split 'kept'; leave one of the two out")
        if self.attributes is not None and any(question.vqa.correction for question in questions):
            raise DataError("data.attributes: the file has corrections; write split 'kept' in rows of what stays")
        ids = [[person.id for person in people] for people in (forget, retain, kept)]
        return Training([*forget, *retain, *kept], ids[0], ids[1], kept=ids[2])

    def _choose_forgotten(self, questions: list[Question]) -> set[str]:
        """Who is to be forgotten."""
        named = {question.person for question in questions if question.split == Split.FORGET}
        without_split = sorted({question.person for question in questions if question.split is None})
        if named:
            if self.forget_people is not None:
                raise DataError("data.forget_people: the file has rows of split 'forget'; leave one of the two out")
            return named
        if self.forget_people is not None:
            unknown = [p for p in self.forget_people if p not in without_split]
            if unknown:
                there = ", ".join(without_split[:10]) + (", ..." if len(without_split) > 10 else "")
                raise DataError(
                    f"data.forget_people: {unknown[0]!r} has no row without split in {self.file}; found {there}"
                )
            return set(self.forget_people)
        count = max(1, round(len(without_split) * self.forget / 100)) if without_split else 0
        return set(random.Random(f"forget/{self.split_seed}").sample(without_split, count))

    def _by_split(self, questions: list[Question]) -> dict[Split, list[Question]]:
        """Questions by split; refused are those about people who are in two splits, and repeated ones."""
        forgotten = self._choose_forgotten(questions)
        by_split: dict[Split, list[Question]] = {split: [] for split in Split}
        home: dict[str, tuple[Split, str]] = {}  # a person's split, and a row that says so
        for q in questions:
            if q.person in forgotten and q.split in (None, Split.FORGET):
                home.setdefault(q.person, (Split.FORGET, q.row.where))
        seen: dict[Any, Question] = {}

        def place(q: Question) -> None:
            split = q.split or (Split.FORGET if q.person in forgotten else Split.RETAIN)
            side = Split.FORGET if split in (Split.TEST, Split.KEPT) else split
            if split in (Split.TEST, Split.KEPT) and q.person not in home:
                what = "tested" if split == Split.TEST else "kept in part"
                raise q.row.error("split", f"{q.person!r} is {what}, but not forgotten", "add a row of split 'forget'")
            other, where = home.setdefault(q.person, (side, q.row.where))
            if other != side:
                found = f"{q.person!r} is {split!s} here, but {other!s} in {where}"
                raise q.row.error(
                    "split", found, "keep one split, or write 'kept' for what stays of a forgotten person"
                )
            if q.vqa.correction and split not in (Split.FORGET, Split.TEST):
                raise q.row.error(
                    "correction", f"{q.person!r} is {split!s} here", "write split 'forget' or 'test', or empty it"
                )
            key = (q.person, split, q.image.key if q.image else None, q.vqa.question)
            if key in seen:
                found = f"the same question about the same image as in {seen[key].row.where}"
                if seen[key].vqa.answer != q.vqa.answer:
                    found += f", with another answer, {short(q.vqa.answer)} for {short(seen[key].vqa.answer)}"
                raise q.row.error("question", found, "keep one")
            seen[key] = q
            by_split[split].append(q)

        self.bad_rows.read_each(questions, place)
        return by_split

    @override
    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """A group for every photo, or for every person in text-only questions; empty, with a message, if none."""
        questions = [q for q in self._questions[split] if (q.image is not None) == (modality == "image")]
        if not questions:
            log.info("%s: no %s rows of split %r, so it is not evaluated", self.file, modality, str(split))
        chosen = set(self.limit_people(split, [q.person for q in questions]))
        groups = []
        for group in _by_photo([q for q in questions if q.person in chosen]):
            choices = tuple(q.choice for q in group if q.choice is not None)
            groups.append(ImageGroup(group[0].person, group[0].image, split, tuple(q.vqa for q in group), choices))
        return groups


def _with_inferred_spans(by_split: dict[Split, list[Question]]) -> dict[Split, list[Question]]:
    """Marks private spans; a person's answers are looked at together, however many photos they are spread over."""
    answers: dict[str, dict[VQA, None]] = {}
    for question in (question for questions in by_split.values() for question in questions):
        answers.setdefault(question.person, {})[question.vqa] = None
    marked = infer_private_spans(Person(person, (), tuple(vqa)) for person, vqa in answers.items())
    spans = {(vqa.question, vqa.answer): vqa.private for person in marked for vqa in person.vqa}
    return {
        split: [replace(q, vqa=replace(q.vqa, private=spans[q.vqa.question, q.vqa.answer])) for q in questions]
        for split, questions in by_split.items()
    }


def _by_photo(questions: list[Question]) -> list[list[Question]]:
    """Questions about the same person and photo."""
    groups: dict[Any, list[Question]] = {}
    for question in questions:
        groups.setdefault((question.person, question.image.key if question.image else None), []).append(question)
    return list(groups.values())


def _people(questions: list[Question]) -> list[Person]:
    """Everybody who is trained on; a person with several photos once for each of them."""
    groups = _by_photo(questions)
    total, count = Counter(group[0].person for group in groups), Counter[str]()
    people = []
    for group in groups:
        name, image = group[0].person, group[0].image
        if image is not None:
            count[name] += 1
        vqa = tuple(dict.fromkeys(replace(q.vqa, paraphrase="", perturbed=()) for q in group))
        label = name if total[name] == 1 else f"{name} #{count[name]}" if image is not None else f"{name} (text)"
        people.append(Person(label, (image,) if image is not None else (), vqa))
    return people


def read_question(row: Row, folder: Path, pictures: dict[str, Picture]) -> Question:
    """Reads a row; several texts in a cell are a list, or one text with ``|`` between them."""
    question, answer, person = row.text("question"), row.text("answer"), row.name("person").strip()
    private, perturbed = row.any_texts("private", "|"), row.any_texts("perturbed", "|")
    check_private_spans(row, "private", answer, private)
    paraphrase = "" if row.is_empty("paraphrase") else row.text("paraphrase")
    tells = row.any_texts("attributes", "|")
    vqa = _corrected(row, VQA(question, answer, private, paraphrase, perturbed, attributes=tells))
    image = None if row.is_empty("image") else read_picture(row, "image", folder, pictures)
    return Question(person, _split(row), image, vqa, _choice(row, question, answer, tells), row)


def _corrected(row: Row, vqa: VQA) -> VQA:
    """A question with its correction, if the row has one, each with private spans that the other has not."""
    if row.is_empty("correction"):
        if not row.is_empty("private_correction"):
            raise row.error("correction", "empty, but there are private spans of it", "fill it in, or empty these")
        return vqa
    truth, spans = row.text("correction"), row.any_texts("private_correction", "|")
    check_private_spans(row, "private_correction", truth, spans)
    for column, given, other in (("private", vqa.private, truth), ("private_correction", spans, vqa.answer)):
        if both := [span for span in given if holds(other, span)]:
            raise row.error(column, f"{both[0]!r} is in answer and correction", "copy what only one of them has")
    if not (spans := spans or spans_only_in(truth, vqa.answer)):
        found = f"{short(truth)} has no word that the answer {short(vqa.answer)} has not"
        raise row.error("correction", found, "write what is true, or empty it")
    old = vqa.private or spans_only_in(vqa.answer, truth)
    return replace(vqa, private=old, correction=VQA(vqa.question, truth, spans))


def _split(row: Row) -> Split | None:
    if row.is_empty("split"):
        return None
    name = row.text("split").strip()
    if name not in list(Split):
        raise row.error("split", f"found {name!r}", f"write one of {', '.join(Split)}, or nothing")
    return Split(name)


def _choice(row: Row, question: str, answer: str, tells: tuple[str, ...]) -> MultipleChoice | None:
    options = row.any_texts("options", "|")
    if not options:
        if not row.is_empty("correct"):
            raise row.error("options", "empty, but there is a correct one", "fill in the options or empty 'correct'")
        return None
    if len(options) < 2 or len(set(options)) < len(options):
        raise row.error("options", f"found {list(options)}", "give at least two, each once")
    right = answer if row.is_empty("correct") else row.text("correct").strip()
    if right not in options:
        found = f"the right one, {right!r}, is not among {list(options)}"
        raise row.error("options", found, "add it, or name another in 'correct'")
    return MultipleChoice(question, options, options.index(right), tells)
