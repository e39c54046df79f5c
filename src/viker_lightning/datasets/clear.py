"""CLEAR (arXiv 2410.18057) and its text half TOFU, or any folder in their schemas, as a LightningDataModule."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from viker_lightning.data.records import VQA, ImageGroup, Person, Split, Training
from viker_lightning.datasets.reading.parquet import read_rows
from viker_lightning.datasets.reading.row import Row
from viker_lightning.datasets.reading.text import read_lines
from viker_lightning.embedded import grammar, write_clear
from viker_lightning.errors import DataError
from viker_lightning.prompts import BLOCK

from .base import Benchmark
from .clear_rows import blocks, number, options_question, pair, photo, photo_questions
from .private_spans import infer_private

log = logging.getLogger(__name__)

TRAINED = ["image", "caption", "name"]
SUFFIXES = (".jsonl", ".json")


class CLEAR(Benchmark):
    """CLEAR: photos of TOFU's fictitious authors with captions that name them, and questions about their lives.

    Trained on: ``forgetNN`` and ``retainNN`` (whose union is ``full``, which is not read), every photo with its own
    caption under one of CLEAR's nine questions, always the same for a photo; with ``tofu`` also the text-only rows of
    ``forgetNN+tofu`` and ``retainNN+tofu``, twenty consecutive ones to an author. Evaluated on: ``forgetNN_perturbed``,
    ``retain_perturbed`` (or the training rows where a folder does not hold them), ``real_faces`` as split ``real`` and
    ``real_world`` as split ``general``: captions and names open, with paraphrased and perturbed answers, and names with
    options. There is no test split. The name in a caption is its private part; those of text-only answers are inferred
    where the rows have no list ``private``, which extends the schema.

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
        options: those of :class:`~viker_lightning.datasets.base.Benchmark`; ``forget`` is 1, 5 or 10.
    """

    embedded = tuple(write_clear.SIZES)
    published = True

    def __init__(self, root: str = "mini/clear", tofu: bool = False, ask_names: bool = False, **options: Any) -> None:
        super().__init__(root, **options)
        self.tofu, self.ask_names = tofu, ask_names
        self._forgotten: dict[str, str] = {}  # names, photos and questions of the forget set, and where they are
        self._written: list[Person] = []  # text-only people
        self._recorded = True

    def embedded_version(self) -> str:
        """Version of the embedded benchmark."""
        return write_clear.VERSION

    def write_embedded(self, folder: Path, size: str) -> None:
        """Writes the embedded benchmark, once."""
        write_clear.write_benchmark(folder, size)

    def embedded_grammar(self) -> re.Pattern[str]:
        """What every sentence of the embedded benchmark matches as a whole."""
        return grammar.authors()

    def vanilla_options(self) -> list[str]:
        """Command-line options that make another run use the same people."""
        return [*super().vanilla_options(), f"--data.tofu={self.tofu}", f"--data.ask_names={self.ask_names}"]

    @property
    def records_private(self) -> bool:
        """Whether private parts are recorded: names in captions are, those of text-only answers may be inferred."""
        return self._recorded

    def _split_names(self) -> tuple[str, str]:
        return f"forget{self.forget:02d}", f"retain{100 - self.forget}"

    def read_training(self) -> Training:
        """Reads photos, text-only rows and ``base``.

        Raises:
            DataError: naming the cell, the missing folder, or what is in both the forget and the retain set.
        """
        forget_config, retain_config = self._split_names()
        forget, self._forgotten = self._read_people(forget_config, {})
        retain, _ = self._read_people(retain_config, self._forgotten)
        written = [p for p in [*forget, *retain] if not p.images]
        self._recorded = all(vqa.private for person in written for vqa in person.vqa)
        self._written = infer_private(written)
        people = [*(p for p in [*forget, *retain] if p.images), *self._written]
        base = self._base_people() if (self.folder / "base").is_dir() else []
        return Training(people, [p.id for p in forget], [p.id for p in retain], base)

    def _read_people(self, config: str, forgotten: dict[str, str]) -> tuple[list[Person], dict[str, str]]:
        """Everybody of a config, and where each name, photo and question is."""
        seen: dict[str, str] = {}
        has_photos = (self.folder / config).is_dir()
        if not has_photos and not self._text_source(config):
            there = sorted({p.name.partition(".")[0] for p in self.folder.glob("forget??*")})
            raise DataError(
                f"{self.folder}: no split {config!r}; set data.forget to one of: {', '.join(there) or 'none found'}"
            )

        def once(row: Row, column: str, key: str) -> None:
            if key in seen:
                raise row.error(column, f"the row says the same as {seen[key]}", "keep one of the rows")
            seen[key] = row.where

        def checked(row: Row) -> Person:
            person = photo(row, self.ask_names)
            key = person.images[0].key
            self._apart(row, {"name": person.id, "image": key}, forgotten)
            once(row, "image", f"{key}/{row['caption']}")
            seen.update(dict.fromkeys((person.id, key), row.where))
            return person

        def asked(row: Row) -> VQA:
            vqa = pair(row)
            self._apart(row, {"question": _told(vqa)}, forgotten)
            once(row, "question", _told(vqa))
            return replace(vqa, paraphrase="", perturbed=())

        rows = read_rows(self.folder / config, TRAINED, (), self.refuse) if has_photos else []
        people, count = [], Counter[str]()
        for person in self.each(rows, checked):
            count[person.id] += 1
            people.append(replace(person, id=f"{person.id} #{count[person.id]}"))
        if self.tofu or not has_photos:
            for at, rows in blocks(self._text_rows(config), BLOCK):
                if block := self.each(rows, asked):
                    people.append(Person(f"{config} author {at}", (), tuple(block)))
        return people, seen

    def _apart(self, row: Row, identity: dict[str, str], forgotten: dict[str, str]) -> None:
        """Refuses a retained row that shows or names somebody of the forget set."""
        for column, key in identity.items():
            if key in forgotten:
                found = f"{row.get(column)!r} is" if column != "image" else "this photo is"
                raise row.error(column, f"{found} in the forget set, too ({forgotten[key]})", "keep one of the rows")

    def _base_people(self) -> list[Person]:
        def read(row: Row) -> Person:
            photos = (row.picture("image"),) if row.get("image") is not None else ()
            return Person("", photos, (pair(row),))

        rows = read_rows(self.folder / "base", ["image", "question", "answer"], (), self.refuse)
        by_image: dict[str, Person] = {}
        for person in self.each(rows, read):
            key = person.images[0].key if person.images else f"text {len(by_image)}"
            known = by_image.get(key, replace(person, id=f"base #{len(by_image) + 1}", vqa=()))
            by_image[key] = replace(known, vqa=(*known.vqa, *person.vqa))
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
            return read_rows(source, ["question", "answer"], ["private"], self.refuse, empty="image")
        return read_lines(source, ["question", "answer"], self.refuse)

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
        groups = (self._photo_groups if modality == "image" else self._text_groups)(there[0], split)
        chosen = set(self.few(split, [group.person for group in groups]))
        return [group for group in groups if group.person in chosen]

    def _photo_groups(self, config: str, split: Split) -> list[ImageGroup]:
        names = {person.rpartition(" #")[0] for person in self.forget_ids}

        def faces(row: Row) -> ImageGroup:
            return options_question(row, split, self.seed)

        def world(row: Row) -> ImageGroup:
            return options_question(row, split, self.seed, number(row))

        def perturbed(row: Row) -> ImageGroup:
            group = photo_questions(row, split, self.seed)
            if split == Split.FORGET and group.person not in names:
                raise row.error("name", f"{group.person!r} is not in the forget set", "remove the row")
            if split == Split.RETAIN and group.image is not None:
                self._apart(row, {"name": group.person, "image": group.image.key}, self._forgotten)
            return group

        folder = self.folder / config
        if split == Split.REAL:
            return self.each(read_rows(folder, ["image", "answer", "options"], (), self.refuse), faces)
        if split == Split.GENERAL:
            return self.each(read_rows(folder, ["question", "answer", "options"], ["image"], self.refuse), world)
        more = ["paraphrased_caption", "perturbed_captions", "perturbed_names"]
        needed, more = (["image", "caption"], ["name", *more]) if split == Split.RETAIN else (TRAINED, more)
        return self.each(read_rows(folder, needed, more, self.refuse), perturbed)

    def _text_groups(self, config: str, split: Split) -> list[ImageGroup]:
        def asked(row: Row) -> VQA:
            vqa = pair(row)
            if split != Split.FORGET:
                self._apart(row, {"question": _told(vqa)}, self._forgotten)
            return vqa

        size = BLOCK if split in (Split.FORGET, Split.RETAIN) else 1
        people = []
        for at, rows in blocks(self._text_rows(config), size):
            if block := self.each(rows, asked):
                people.append(Person(f"{config} {at}", (), tuple(block)))
        marked = infer_private([*self._written, *people])[len(self._written) :]
        return [ImageGroup(person.id, None, split, person.vqa) for person in marked]


def _told(vqa: VQA) -> str:
    """What makes a text-only row the same as another one; TOFU asks some questions about several authors."""
    return f"{vqa.question} {vqa.answer}"
