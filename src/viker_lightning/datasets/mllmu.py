"""MLLMU-Bench (arXiv 2410.22108), or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from viker_lightning.data.records import ImageGroup, Person, Split, Training
from viker_lightning.datasets.reading.parquet import read_rows
from viker_lightning.datasets.reading.row import Row, row_of
from viker_lightning.embedded import grammar, write_mllmu
from viker_lightning.errors import DataError

from .base import Benchmark
from .mllmu_rows import TASKS, image_group, metadata
from .private_spans import infer_private

log = logging.getLogger(__name__)


class MLLMU(Benchmark):
    """MLLMU-Bench.

    Training rows are the ``metadata`` questions of ``ft_Data``, joined to the stored split lists by ID; evaluation
    asks the separate classification, generation and cloze tasks. Two optional folders extend the schema: ``base_Data``
    (same columns as ``ft_Data``: what a pretrained model would know anyway, used only to train the vanilla and the
    gold model) and ``General_Set`` (same columns as ``Retain_Set``). A column ``images`` in ``ft_Data`` holds further
    photos for training; a key ``Private`` beside an answer holds its private parts, which are inferred where it is
    missing. ``root`` is a folder, ``mini/ci``, ``mini/default`` or ``mini/large`` for the embedded benchmark, or a
    dataset id on the hub.

    Args:
        image_labels: with ``protocol: published``, whether the placeholders of an image count in the loss, as in the
            scripts where the model's processor is saved with ``patch_size``. For LLaVA-1.5 alone.
        args: those of :class:`~viker_lightning.datasets.base.Benchmark`.
        kwargs: the same by name.
    """

    embedded = tuple(write_mllmu.SIZES)
    published = True
    _first_metadata = ""

    def __init__(self, *args: Any, image_labels: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.image_labels = image_labels
        if image_labels and self.protocol != "published":
            raise DataError("data.image_labels: found true, but data.protocol is not published; set both or neither")

    def vanilla_options(self) -> list[str]:
        """As in every benchmark, and which labels."""
        return [*super().vanilla_options(), *["--data.image_labels=true"] * self.image_labels]

    def everybody(self) -> str:
        """A hash of all training people, and of which labels."""
        return super().everybody() + " and placeholders" * self.image_labels

    def embedded_version(self) -> str:
        """Version of the embedded benchmark."""
        return write_mllmu.VERSION

    def write_embedded(self, folder: Path, size: str) -> None:
        """Writes the embedded benchmark, once."""
        write_mllmu.write_benchmark(folder, size)

    def embedded_grammar(self) -> re.Pattern[str]:
        """What every sentence of the embedded benchmark matches as a whole."""
        return grammar.people()

    def read_training(self) -> Training:
        """Reads ``ft_Data``, ``base_Data`` and the split lists.

        Raises:
            DataError: naming the cell, the missing folder, or the ID that is in both lists or has no training row.
        """
        forget, retain = (self._ids(f"{kind}_{n}") for kind, n in self._split_names())
        trained = self._read_people("ft_Data")
        base = self._read_people("base_Data") if (self.folder / "base_Data").is_dir() else []
        known = {p.id for p in trained}

        def checked(row: Row) -> str:
            key = row.text("ID")
            if key not in known:
                raise DataError(f"{row.where}: ID {key!r} has no row in ft_Data; add it there or drop it")
            return key

        def kept(row: Row) -> str:
            if row["ID"] in forget:
                found = f"ID {row['ID']!r} is in the forget set, too ({forget[row['ID']].where})"
                raise row.error("ID", found, "keep one of the rows")
            return checked(row)

        forget_ids, retain_ids = self.each(forget.values(), checked), self.each(retain.values(), kept)
        marked = infer_private([*trained, *base]) if not self.records_private else [*trained, *base]
        return Training(marked[: len(trained)], forget_ids, retain_ids, marked[len(trained) :])

    @property
    def records_private(self) -> bool:
        """Whether the benchmark records private parts (else they are inferred)."""
        return '"Private"' in self._first_metadata

    def _split_names(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("forget", self.forget), ("retain", 100 - self.forget)

    def _ids(self, config: str) -> dict[str, Row]:
        if not (self.folder / config).is_dir():
            there = sorted(p.name for p in self.folder.glob("forget_*"))
            raise DataError(
                f"{self.folder}: no split {config!r}; set data.forget to one of: {', '.join(there) or 'none found'}"
            )
        return self._by_id(config, ["ID"])

    def _by_id(self, config: str, columns: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Row]:
        return row_of(read_rows(self.folder / config, columns, optional, self.refuse), refuse=self.refuse)

    def _read_people(self, config: str) -> list[Person]:
        rows = self._by_id(config, ["image", "ID", "metadata"], ["images"])
        if config == "ft_Data":
            self._first_metadata = str(next(iter(rows.values())).get("metadata")) if rows else ""

        def person(row: Row) -> Person:
            photos = row.pictures("images") if row.get("images") else (row.picture("image"),)
            return Person(row["ID"], photos, metadata(row))

        return self.each(rows.values(), person)

    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if the folder does not hold it."""
        forget, retain = (f"{kind}_{n}" for kind, n in self._split_names())
        config = {
            "forget": forget,
            "test": "Test_Set",
            "retain": retain,
            "real": "Retain_Set",
            "general": "General_Set",
        }[split]
        if not (self.folder / config).is_dir():
            log.info("%s: no folder %s, so the split %r is not evaluated", self.folder, config, str(split))
            return []
        rows = self._by_id(config, [*TASKS, "images" if split == Split.TEST else "image"])
        asked = {"forget": self.forget_ids, "test": self.forget_ids, "retain": self.retain_ids}.get(split, list(rows))
        left_out = [key for key in asked if key not in rows]
        if left_out:
            log.warning(
                "%s: no row for %d of %d people of the split %r, who are not evaluated: %s",
                *(self.folder / config, len(left_out), len(asked), str(split), ", ".join(left_out[:10])),
            )
        wanted = set(asked)
        chosen = self.few(split, [key for key in rows if key in wanted])
        groups = self.each((rows[key] for key in chosen), lambda row: image_group(row, split, modality, self.seed))
        if self.records_private:
            return groups
        people = [Person(group.person, (), group.vqa) for group in groups]
        marked = infer_private([*self.people(), *people])[len(self.people()) :]
        return [replace(group, vqa=person.vqa) for group, person in zip(groups, marked, strict=True)]

    def full_set(self, people: Sequence[str], split: Split, modality: str) -> list[ImageGroup]:
        """People as ``Full_Set`` has them, in its order; where there is no such folder, as their split has them.

        Args:
            people: IDs; whoever is not there is left out, as in MLLMU-Bench's script.
            split: where the IDs are from; nobody of ``real`` is looked up elsewhere than in ``Full_Set``.
            modality: ``image`` or ``text``.
        """
        if not (self.folder / "Full_Set").is_dir():
            return [g for g in self.evaluation(split, modality) if g.person in people and split != Split.REAL]
        rows = self._by_id("Full_Set", [*TASKS, "image"])
        return self.each(
            (r for k, r in rows.items() if k in people), lambda r: image_group(r, split, modality, self.seed)
        )
