"""UMU-Bench, or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from viker_lightning.data.records import ImageGroup, Person, Split, Training
from viker_lightning.datasets.reading.parquet import read_rows
from viker_lightning.datasets.reading.row import Row, row_of
from viker_lightning.errors import DataError

from .base import Benchmark
from .private_spans import infer_private
from .umu_rows import TASKS, TRAINED, image_group, training

log = logging.getLogger(__name__)


class UMUBench(Benchmark):
    """UMU-Bench: the same knowledge asked with a photo and without, to see whether both are forgotten.

    ``root`` is a folder, or a dataset id on the hub, with a parquet folder for every config: ``forget_N`` and
    ``retain_(100-N)`` (whose union is ``Full_Set``, which is not read) and, optionally, ``Real_Person_Set``. Cells with
    questions are strings that hold a dictionary, as JSON or as Python writes it.

    Trained on: ``MM_QA`` about the photo, and ``UM_QA`` without any, as a second person ``ID (text)``. Evaluated:
    ``Generation``, ``Classify`` and ``Cloze`` of ``forget_N``, ``retain_(100-N)`` and, as split ``real``,
    ``Real_Person_Set``: what is under ``muitimodal`` (or ``multimodal``) with ``modality: image``, what is under
    ``unimodal`` with ``text``; ``both`` is what the benchmark is about. There is no split ``test`` or ``general``. The
    private parts of answers are inferred. The right option is that of the question's own answer; the published code
    takes the letter of the text-only question, which here counts only where there is no answer. All options are those
    of :class:`~viker_lightning.datasets.base.Benchmark`; ``forget`` is 5, 10 or 15.
    """

    paired = True

    @property
    def records_private(self) -> bool:
        """Private parts are not recorded."""
        return False

    def _split_names(self) -> tuple[str, str]:
        return f"forget_{self.forget}", f"retain_{100 - self.forget}"

    def read_training(self) -> Training:
        """Reads who is forgotten and who is retained.

        Raises:
            DataError: naming the cell, the missing folder, or the ID that is in both.
        """
        forget_config, retain_config = self._split_names()
        if not (self.folder / forget_config).is_dir():
            there = ", ".join(sorted(p.name for p in self.folder.glob("forget_*"))) or "none found"
            raise DataError(f"{self.folder}: no split {forget_config!r}; set data.forget to one of: {there}")
        columns = ["image", *TRAINED.values()]
        forget, retain = (self._by_id(config, columns) for config in (forget_config, retain_config))

        def kept(row: Row) -> list[Person]:
            if row["ID"] in forget:
                found = f"ID {row['ID']!r} is in the forget set, too ({forget[row['ID']].where})"
                raise row.error("ID", found, "keep one of the rows")
            return _people(row)

        groups = [self.each(forget.values(), _people), self.each(retain.values(), kept)]
        forgotten, retained = ([p.id for pair in group for p in pair] for group in groups)
        everybody = [pair for group in groups for pair in group]
        # Apart, since what an answer tells with and without a photo is no other person's word.
        shown, told = (infer_private(people) for people in zip(*everybody, strict=True)) if everybody else ([], [])
        return Training([p for pair in zip(shown, told, strict=True) for p in pair], forgotten, retained)

    def _by_id(self, config: str, columns: Iterable[str]) -> dict[str, Row]:
        return row_of(read_rows(self.folder / config, ["ID", *columns], (), self.refuse), refuse=self.refuse)

    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if the folder does not hold it."""
        forget, retain = self._split_names()
        config = {Split.FORGET: forget, Split.RETAIN: retain, Split.REAL: "Real_Person_Set"}.get(split)
        if config is None or not (self.folder / config).is_dir():
            missing = f"no folder {config}" if config else "UMU-Bench has no such split"
            log.info("%s: %s, so the split %r is not evaluated", self.folder, missing, str(split))
            return []
        rows = self._by_id(config, ["image", *TASKS])
        asked = {Split.FORGET: self.forget_ids, Split.RETAIN: self.retain_ids}.get(split, list(rows))
        chosen = self.few(split, [key for key in rows if key in set(asked)])
        groups = self.each((rows[key] for key in chosen), lambda row: image_group(row, split, modality))
        trained = [p for p in self.people() if bool(p.images) == (modality == "image")]
        asked_people = [Person(group.person, (), group.vqa) for group in groups]
        marked = infer_private([*trained, *asked_people])[len(trained) :]
        return [replace(group, vqa=person.vqa) for group, person in zip(groups, marked, strict=True)]


def _people(row: Row) -> list[Person]:
    """A row twice: with the photo and its questions, and without any photo."""
    shown = Person(row.text("ID"), (row.picture("image"),), training(row, "image"))
    return [shown, Person(f"{shown.id} (text)", (), training(row, "text"))]
