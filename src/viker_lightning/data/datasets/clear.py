"""CLEAR (arXiv 2410.18057) and its text half TOFU, or any folder in their schemas, as a LightningDataModule."""

from __future__ import annotations

import hashlib
import logging
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from typing_extensions import override

from viker_lightning.data.embedded.write_clear import AUTHORS
from viker_lightning.data.prompts import BLOCK, CAPTION_QUESTIONS, CHOICE_QUESTION, NAME_QUESTION
from viker_lightning.data.records import VQA, ImageGroup, MultipleChoice, Person, Picture, Split, Training
from viker_lightning.errors import DataError

from .base import Benchmark
from .private_spans import check_private_spans, infer_in_groups, infer_private_spans
from .reading.parquet import read_rows
from .reading.row import Row
from .reading.text_files import read_lines

log = logging.getLogger(__name__)

TRAINED = ["image", "caption", "name"]
SUFFIXES = (".jsonl", ".json")


class CLEAR(Benchmark):
    """CLEAR: photos of TOFU's fictitious authors with captions that name them, and questions about their lives.

    Trained on: ``forgetNN`` and ``retainNN`` (whose union is ``full``, which is not read), every photo with its own
    caption under one of CLEAR's nine questions, always the same for a photo; with ``tofu`` also the text-only rows of
    ``forgetNN+tofu`` and ``retainNN+tofu``, twenty consecutive ones to an author, whose ID is made of the first
    (:func:`author_id`). Evaluated on: ``forgetNN_perturbed``, ``retain_perturbed`` (or the training rows where a folder
    does not hold them), ``real_faces`` as split ``real`` and ``real_world`` as split ``general``: captions and names
    open, with paraphrased and perturbed answers, and names with options. There is no test split. The name in a caption
    is its private span; those of text-only answers are inferred where the rows have no list ``private``, which extends
    the schema.

    Beside or in place of the parquet folders, TOFU's files (``forget10.json`` or ``.jsonl``, one object a line, and so
    on) are read as text-only rows: with ``modality: text``, which asks ``forgetNN_perturbed``, ``retain_perturbed``,
    ``real_authors_perturbed`` and ``world_facts_perturbed``, or the rows of ``+tofu``. An optional folder ``base``
    (image or null, question, answer) extends the schema: what a pretrained model would know anyway, used only to
    train the vanilla and the gold model. ``root`` is a folder, ``mini/clear-ci`` or ``mini/clear`` for the embedded
    benchmark, or a dataset id on the hub.

    Args:
        root: see above.
        tofu: whether text-only rows are trained on, too; a folder without photos is in any case.
        ask_names: whether to train on the name of the person on every photo, too; CLEAR trains on captions alone.
        options: those of :class:`~viker_lightning.data.datasets.base.Benchmark`; ``forget`` is 1, 5 or 10.
    """

    embedded = AUTHORS
    published = True

    def __init__(self, root: str = "mini/clear", tofu: bool = False, ask_names: bool = False, **options: Any) -> None:
        super().__init__(root, **options)
        self.tofu, self.ask_names = tofu, ask_names
        self._forgotten: dict[str, str] = {}  # names, photos and questions of the forget set, and where they are
        self._text_people: list[Person] = []

    @override
    def vanilla_options(self) -> list[str]:
        return [*super().vanilla_options(), f"--data.tofu={self.tofu}", f"--data.ask_names={self.ask_names}"]

    @override
    def read_training(self) -> Training:
        """Reads photos, text-only rows and ``base``."""
        forget_config, retain_config = self._split_names()
        forget, self._forgotten = self._read_people(forget_config, {})
        retain, _ = self._read_people(retain_config, self._forgotten)
        text_people = [p for p in [*forget, *retain] if not p.images]
        self.records_private = all(vqa.private for person in text_people for vqa in person.vqa)
        self._text_people = infer_private_spans(text_people)
        people = [*(p for p in [*forget, *retain] if p.images), *self._text_people]
        base = self._read_base() if (self.folder / "base").is_dir() else []
        return Training(people, [p.id for p in forget], [p.id for p in retain], base)

    def _split_names(self) -> tuple[str, str]:
        return f"forget{self.forget:02d}", f"retain{100 - self.forget}"

    def _read_people(self, config: str, forgotten: dict[str, str]) -> tuple[list[Person], dict[str, str]]:
        """Everybody of a config, and where each name, photo and question is."""
        seen: dict[str, str] = {}
        has_photos = (self.folder / config).is_dir()
        if not has_photos and not self._text_source(config):
            there = ", ".join(sorted({p.name.partition(".")[0] for p in self.folder.glob("forget??*")})) or "none found"
            raise DataError(f"{self.folder}: no split {config!r}; set data.forget to one of: {there}")

        def check_first(row: Row, column: str, key: str) -> None:
            if key in seen:
                raise row.error(column, f"the row says the same as {seen[key]}", "keep one of the rows")
            seen[key] = row.where

        def read_photo(row: Row) -> Person:
            person = photo_person(row, self.ask_names)
            key = person.images[0].key
            check_apart(row, {"name": person.id, "image": key}, forgotten)
            check_first(row, "image", f"{key}/{row['caption']}")
            seen.update(dict.fromkeys((person.id, key), row.where))
            return person

        def read_text(row: Row) -> VQA:
            vqa = text_question(row)
            check_apart(row, {"question": text_identity(vqa)}, forgotten)
            check_first(row, "question", text_identity(vqa))
            return replace(vqa, paraphrase="", perturbed=())

        rows = read_rows(self.folder / config, TRAINED, self.bad_rows.handle) if has_photos else []
        people, count = [], Counter[str]()
        for person in self.bad_rows.read_each(rows, read_photo):
            count[person.id] += 1
            people.append(replace(person, id=f"{person.id} #{count[person.id]}"))
        if self.tofu or not has_photos:
            for _, rows in blocks(self._text_rows(config), BLOCK):
                if block := self.bad_rows.read_each(rows, read_text):
                    people.append(Person(author_id(block), (), tuple(block)))
        return people, seen

    def _read_base(self) -> list[Person]:
        def read(row: Row) -> Person:
            photos = (row.picture("image"),) if row.get("image") is not None else ()
            return Person("", photos, (text_question(row),))

        rows = read_rows(self.folder / "base", ["image", "question", "answer"], self.bad_rows.handle)
        by_image: dict[str, Person] = {}
        for person in self.bad_rows.read_each(rows, read):
            key = person.images[0].key if person.images else f"text {len(by_image)}"
            earlier = by_image.get(key, replace(person, id=f"base #{len(by_image) + 1}", vqa=()))
            by_image[key] = replace(earlier, vqa=(*earlier.vqa, *person.vqa))
        return list(by_image.values())

    def _text_source(self, config: str) -> Path | None:
        """A TOFU file, or a ``+tofu`` folder."""
        files = [self.folder / f"{config}{suffix}" for suffix in SUFFIXES]
        return next((p for p in [*files, self.folder / f"{config}+tofu"] if p.exists()), None)

    def _text_rows(self, config: str) -> list[Row]:
        source = self._text_source(config)
        if source is None:
            raise DataError(f"{self.folder}: no {config}+tofu, which data.tofu needs; add it or set data.tofu to false")
        if source.is_dir():
            return read_rows(source, ["question", "answer"], self.bad_rows.handle, ["private"], empty="image")
        return read_lines(source, ["question", "answer"], self.bad_rows.handle)

    @override
    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """A group for every photo, or for every author without photos; empty, with a message, if there are none."""
        forget, retain = self._split_names()
        real, general = {
            "image": ("real_faces", "real_world"),
            "text": ("real_authors_perturbed", "world_facts_perturbed"),
        }[modality]
        configs: tuple[str, ...] = {
            Split.FORGET: (f"{forget}_perturbed", forget),
            Split.RETAIN: ("retain_perturbed", retain),
            Split.REAL: (real,),
            Split.GENERAL: (general,),
            Split.TEST: (),
        }[split]
        there = [c for c in configs if ((self.folder / c).is_dir() if modality == "image" else self._text_source(c))]
        if not there:
            missing = f"no {' and no '.join(configs)}" if configs else f"{type(self).__name__} has no such split"
            log.info("%s: %s, so the split %r is not evaluated (%s)", self.folder, missing, str(split), modality)
            return []
        if there[0] != configs[0]:
            log.info("%s: no %s, so %s is evaluated, without paraphrases", self.folder, configs[0], there[0])
        read = self._read_photo_groups if modality == "image" else self._read_text_groups
        groups = read(there[0], split)
        chosen = set(self.limit_people(split, [group.person for group in groups]))
        return [group for group in groups if group.person in chosen]

    def _read_photo_groups(self, config: str, split: Split) -> list[ImageGroup]:
        names = {person.rpartition(" #")[0] for person in self.forget_ids}

        def read(row: Row) -> ImageGroup:
            if split in (Split.REAL, Split.GENERAL):
                return options_question(row, split, self.seed)
            group = photo_questions(row, split, self.seed)
            if split == Split.FORGET and group.person not in names:
                raise row.error("name", f"{group.person!r} is not in the forget set", "remove the row")
            if split == Split.RETAIN and group.image is not None:
                check_apart(row, {"name": group.person, "image": group.image.key}, self._forgotten)
            return group

        more = ["paraphrased_caption", "perturbed_captions", "perturbed_names"]
        columns, optional = {
            Split.REAL: (["image", "answer", "options"], []),
            Split.GENERAL: (["question", "answer", "options"], ["image"]),
            Split.RETAIN: (["image", "caption"], ["name", *more]),
        }.get(split, (TRAINED, more))
        rows = read_rows(self.folder / config, columns, self.bad_rows.handle, optional)
        return self.bad_rows.read_each(rows, read)

    def _read_text_groups(self, config: str, split: Split) -> list[ImageGroup]:
        def read(row: Row) -> VQA:
            vqa = text_question(row)
            if split != Split.FORGET:
                check_apart(row, {"question": text_identity(vqa)}, self._forgotten)
            return vqa

        authors = split in (Split.FORGET, Split.RETAIN)
        groups = []
        for number, rows in blocks(self._text_rows(config), BLOCK if authors else 1):
            if block := self.bad_rows.read_each(rows, read):
                who = author_id(block) if authors else f"{config} {number}"
                groups.append(ImageGroup(who, None, split, tuple(block)))
        return infer_in_groups(groups, self._text_people)


def check_apart(row: Row, identity: dict[str, str], forgotten: dict[str, str]) -> None:
    """Refuses a retained row that shows or names somebody of the forget set."""
    for column, key in identity.items():
        if key in forgotten:
            found = f"{row.get(column)!r} is" if column != "image" else "this photo is"
            raise row.error(column, f"{found} in the forget set, too ({forgotten[key]})", "keep one of the rows")


def text_identity(vqa: VQA) -> str:
    """What makes a text-only row the same as another one; TOFU asks some questions about several authors."""
    return f"{vqa.question} {vqa.answer}"


def author_id(block: Sequence[VQA]) -> str:
    """Whom the text-only rows of an author are about: the same in every file and split that has these rows.

    Nothing names the authors there, so it is a hash of the first row, as it is trained on.
    """
    return f"author {hashlib.sha256(text_identity(block[0]).encode()).hexdigest()[:8]}"


def caption_question(picture: Picture) -> str:
    """One of CLEAR's nine questions, always the same for a picture (CLEAR itself draws one at every access)."""
    return random.Random(picture.key).choice(CAPTION_QUESTIONS)


def name_in(name: str, text: str) -> tuple[str, ...]:
    """Where a text says a name: as a whole (in any case), else the parts of the name that occur."""
    for parts in ([name], name.split()):
        spans = [m[0] for p in parts if (m := re.search(rf"(?<!\w){re.escape(p)}(?!\w)", text, re.IGNORECASE))]
        if spans:
            return tuple(dict.fromkeys(spans))
    return ()


def photo_person(row: Row, ask_name: bool) -> Person:
    """A row of ``forgetNN`` or ``retainNN``: a photo to train on, under the person's name for the time being."""
    picture, name, caption = row.picture("image"), row.name("name"), row.text("caption")
    questions = [VQA(caption_question(picture), caption, name_in(name, caption))]
    if ask_name:
        questions.append(VQA(NAME_QUESTION, name, (name,)))
    return Person(name, (picture,), tuple(questions))


def text_question(row: Row) -> VQA:
    """A row of ``base``, of a ``+tofu`` config, or of a TOFU file: question, answer, and what evaluation adds."""
    question, answer = row.text("question"), row.text("answer")
    private, perturbed = (row.texts(c) if row.get(c) is not None else () for c in ("private", "perturbed_answer"))
    check_private_spans(row, "private", answer, private)
    paraphrase = row.text("paraphrased_answer") if row.get("paraphrased_answer") is not None else ""
    return VQA(question, answer, private, paraphrase, perturbed)


def photo_questions(row: Row, split: Split, seed: int) -> ImageGroup:
    """A row of ``*_perturbed`` (or of ``forgetNN`` or ``retainNN``) to evaluate: caption, name, name with options."""
    picture, caption = row.picture("image"), row.text("caption")
    paraphrase = row.text("paraphrased_caption") if "paraphrased_caption" in row else ""
    captions = row.texts("perturbed_captions") if "perturbed_captions" in row else ()
    question = caption_question(picture)
    if "name" not in row:
        return ImageGroup(row_number(row), picture, split, (VQA(question, caption, (), paraphrase, captions),))
    name = row.name("name")
    names = row.texts("perturbed_names") if "perturbed_names" in row else ()
    captioned = VQA(question, caption, name_in(name, caption), paraphrase, captions)
    choices = (_choice(row, "perturbed_names", CHOICE_QUESTION, name, [name, *names], seed),) if names else ()
    return ImageGroup(name, picture, split, (captioned, VQA(NAME_QUESTION, name, (name,), "", names)), choices)


def options_question(row: Row, split: Split, seed: int) -> ImageGroup:
    """A row of ``real_faces`` or ``real_world``: one question, open and with its options, the right one among them."""
    answer, options = row.text("answer"), row.texts("options")
    named = split == Split.REAL
    if len(set(options) | {answer}) < 2:
        raise row.error("options", f"found only {options[0]!r}", "give at least one wrong answer")
    wrong = tuple(dict.fromkeys(option for option in options if option != answer))
    question = NAME_QUESTION if named else row.text("question")
    return ImageGroup(
        answer if named else row_number(row),
        row.picture("image") if named or row.get("image") is not None else None,
        split,
        (VQA(question, answer, (answer,) if named else (), "", wrong),),
        (_choice(row, "options", CHOICE_QUESTION if named else question, answer, [answer, *wrong], seed),),
    )


def blocks(rows: Iterable[Row], size: int) -> Iterator[tuple[int, list[Row]]]:
    """Rows by so many of their file, and the number of each block, from 1; a row that could not be read moves none."""
    for block, members in groupby(rows, lambda row: row.place // size):
        yield block + 1, list(members)


def row_number(row: Row) -> str:
    """``row 7``: which row of its file it is."""
    return row.where.rpartition(", ")[2]


def _choice(row: Row, column: str, question: str, answer: str, options: list[str], seed: int) -> MultipleChoice:
    """The options in an order drawn by row, so that the right one has no favourite place."""
    if answer in options[1:]:
        raise row.error(column, f"holds the right answer {answer!r} among the wrong ones", "remove it there")
    mixed = random.Random(f"{seed}/{row_number(row)}/{question}/{answer}").sample(options, len(options))
    return MultipleChoice(question, tuple(mixed), mixed.index(answer))
