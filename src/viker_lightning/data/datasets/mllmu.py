"""MLLMU-Bench (arXiv 2410.22108), or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from viker_lightning.data.embedded.write_mllmu import PEOPLE
from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Person, Split, Training
from viker_lightning.errors import DataError, short

from .base import Benchmark
from .private_spans import check_private_spans, infer_in_groups, infer_private_spans
from .reading.parquet import read_rows
from .reading.row import Row, check_not_forgotten, is_visible
from .reading.text_files import unique_fields

log = logging.getLogger(__name__)

TASKS = ("ID", "Classification_Task", "Generation_Task", "Mask_Task")
MODALITIES = {"image": ("Image_Textual_Questions", "Image_Textual"), "text": ("Pure_Text_Questions", "Pure_Text")}


class MLLMU(Benchmark):
    """MLLMU-Bench.

    Training rows are the ``metadata`` questions of ``ft_Data``, joined to the stored split lists by ID; evaluation
    asks the separate classification, generation and cloze tasks. Two optional folders extend the schema: ``base_Data``
    (same columns as ``ft_Data``: what a pretrained model would know anyway, used only to train the vanilla and the
    gold model) and ``General_Set`` (same columns as ``Retain_Set``). A column ``images`` in ``ft_Data`` holds further
    photos for training. Beside an answer, a key ``Private`` holds its private spans, which are inferred where it is
    missing, and ``Attributes`` what about the person it tells, so that somebody can be forgotten in part. ``root`` is a
    folder, a dataset id on the hub, or ``mini/`` and a size, as ``mini/default``, for the embedded benchmark
    (:data:`viker_lightning.data.embedded.write_mllmu.SIZES`).

    Args:
        image_labels: with ``protocol: published``, whether the placeholders of an image count in the loss, as in the
            scripts where the model's processor is saved with ``patch_size``. For LLaVA-1.5 alone.
        args: those of :class:`~viker_lightning.data.datasets.base.Benchmark`.
        kwargs: the same by name.
    """

    embedded = PEOPLE
    published = True

    def __init__(self, *args: Any, image_labels: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.image_labels = image_labels
        if image_labels and self.protocol != "published":
            raise DataError("data.image_labels: found true, but data.protocol is not published; set both or neither")

    @override
    def vanilla_options(self) -> list[str]:
        return [*super().vanilla_options(), *["--data.image_labels=true"] * self.image_labels]

    @override
    def everybody(self) -> str:
        """A hash of all training people, and of which labels."""
        return super().everybody() + " and placeholders" * self.image_labels

    @override
    def read_training(self) -> Training:
        """Reads ``ft_Data``, ``base_Data`` and the split lists."""
        forget, retain = (self._read_split_list(config) for config in self._split_names())
        people = self._read_people("ft_Data")
        base = self._read_people("base_Data") if (self.folder / "base_Data").is_dir() else []
        ids = {p.id for p in people}

        def read_id(row: Row) -> str:
            key = row.text("ID")
            if key not in ids:
                raise DataError(f"{row.where}: ID {key!r} has no row in ft_Data; add it there or drop it")
            return key

        def read_retained_id(row: Row) -> str:
            check_not_forgotten(row, forget)
            return read_id(row)

        forget_ids = self.bad_rows.read_each(forget.values(), read_id)
        retain_ids = self.bad_rows.read_each(retain.values(), read_retained_id)
        if left := sorted(ids - {*forget_ids, *retain_ids}):
            named = ", ".join(left[:10])
            log.warning("%s: %d people of ft_Data are neither forgotten nor retained: %s", self.root, len(left), named)
        everybody = [*people, *base] if self.records_private else infer_private_spans([*people, *base])
        return Training(everybody[: len(people)], forget_ids, retain_ids, everybody[len(people) :])

    def _split_names(self) -> tuple[str, str]:
        return f"forget_{self.forget}", f"retain_{100 - self.forget}"

    def _read_split_list(self, config: str) -> dict[str, Row]:
        if not (self.folder / config).is_dir():
            there = ", ".join(sorted(p.name for p in self.folder.glob("forget_*"))) or "none found"
            raise DataError(f"{self.folder}: no split {config!r}; set data.forget to one of: {there}")
        return self._read_by_id(config, ["ID"])

    def _read_by_id(self, config: str, columns: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Row]:
        rows = read_rows(self.folder / config, columns, self.bad_rows.handle, optional)
        return self.bad_rows.by_id(rows)

    def _read_people(self, config: str) -> list[Person]:
        rows = self._read_by_id(config, ["image", "ID", "metadata"], ["images"])
        if config == "ft_Data" and rows:
            self.records_private = '"Private"' in str(next(iter(rows.values())).get("metadata"))

        def read_person(row: Row) -> Person:
            photos = row.pictures("images") if row.get("images") else (row.picture("image"),)
            return Person(row["ID"], photos, training_questions(row))

        return self.bad_rows.read_each(rows.values(), read_person)

    @override
    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if the folder does not hold it."""
        forget, retain = self._split_names()
        config = {
            Split.FORGET: forget,
            Split.TEST: "Test_Set",
            Split.RETAIN: retain,
            Split.REAL: "Retain_Set",
            Split.GENERAL: "General_Set",
        }[split]
        if not (self.folder / config).is_dir():
            log.info("%s: no folder %s, so the split %r is not evaluated", self.folder, config, str(split))
            return []
        rows = self._read_by_id(config, [*TASKS, "images" if split == Split.TEST else "image"])
        members = {Split.FORGET: self.forget_ids, Split.TEST: self.forget_ids, Split.RETAIN: self.retain_ids}
        ids = members.get(split, list(rows))
        left_out = [key for key in ids if key not in rows]
        if left_out:
            log.warning(
                "%s: no row for %d of %d people of the split %r, who are not evaluated: %s",
                *(self.folder / config, len(left_out), len(ids), str(split), ", ".join(left_out[:10])),
            )
        wanted = set(ids)
        chosen = self.limit_people(split, [key for key in rows if key in wanted])
        groups = self._read_groups((rows[key] for key in chosen), split, modality)
        return groups if self.records_private else infer_in_groups(groups, self.people())

    def _read_groups(self, rows: Iterable[Row], split: Split, modality: str) -> list[ImageGroup]:
        return self.bad_rows.read_each(rows, lambda row: image_group(row, split, modality, self.seed))

    def full_set(self, people: Sequence[str], split: Split, modality: str) -> list[ImageGroup]:
        """People as ``Full_Set`` has them, in its order; where there is no such folder, as their split has them.

        Args:
            people: IDs; whoever is not there is left out, as in MLLMU-Bench's script.
            split: where the IDs are from; nobody of ``real`` is looked up elsewhere than in ``Full_Set``.
            modality: ``image`` or ``text``.
        """
        if not (self.folder / "Full_Set").is_dir():
            return [g for g in self.evaluation(split, modality) if g.person in people and split != Split.REAL]
        rows = self._read_by_id("Full_Set", [*TASKS, "image"])
        return self._read_groups((row for key, row in rows.items() if key in people), split, modality)


def image_group(row: Row, split: Split, modality: str, seed: int) -> ImageGroup:
    """An evaluation row, with ``image``, or ``images`` for the test split, of which one is drawn."""
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
        tuple(
            Cloze(*_pair(row, "Mask_Task", item, "Ground_Truth"), _texts(row, "Mask_Task", item, "Attributes"))
            for item in _of_type(row, "Mask_Task", kind)
        ),
    )


def _pair(row: Row, column: str, item: dict[str, Any], answer: str) -> tuple[str, str]:
    return _text(row, column, "Question", item.get("Question")), _text(row, column, answer, item.get(answer))


def _text(row: Row, column: str, name: str, value: Any) -> str:
    """A text within a cell, called so."""
    if not isinstance(value, str) or not is_visible(value):
        raise row.error(column, f"{name} is {short(value)}", "give it a text or remove the item")
    return Row({f"{column}, {name}": value}, row.where).text(f"{column}, {name}")


def _vqa(row: Row, column: str, item: dict[str, Any], answer: str) -> VQA:
    vqa = VQA(*_pair(row, column, item, answer), _texts(row, column, item, "Private"))
    check_private_spans(row, f"{column}, Private", vqa.answer, vqa.private)
    return replace(vqa, attributes=_texts(row, column, item, "Attributes"))


def _texts(row: Row, column: str, item: dict[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts within a cell, which may be missing."""
    texts = item.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and is_visible(text) for text in texts):
        raise row.error(column, f"{name} is {short(texts)}", "write a list of texts")
    return tuple(texts)


def _of_type(row: Row, column: str, kind: str) -> list[dict[str, Any]]:
    kinds = [kind for _, kind in MODALITIES.values()]
    for item in row.structs(column):
        if item.get("Type") not in kinds:
            raise row.error(column, f"Type is {item.get('Type')!r}", f"write one of {', '.join(kinds)}")
    return [item for item in row.structs(column) if item["Type"] == kind]


def training_questions(row: Row) -> tuple[VQA, ...]:
    """The training questions of an ``ft_Data`` row, each once."""
    try:
        items = json.loads(row.text("metadata"), object_pairs_hook=unique_fields)
    except (ValueError, RecursionError) as error:
        raise row.error("metadata", f"not JSON ({error})", "write a list of {ID, Question, Answer}") from error
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise row.error("metadata", f"found {short(items)}", "write a non-empty list of {ID, Question, Answer}")
    strangers = [item["ID"] for item in items if item.get("ID", row["ID"]) != row["ID"]]
    if strangers:
        found = f"a question of ID {short(strangers[0])} in the row of {row['ID']!r}"
        raise row.error("metadata", found, "move it to its person, or fix the ID")
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
    tells = _texts(row, "Classification_Task", item, "Attributes")
    return MultipleChoice(question, tuple(options.values()), list(options).index(right), tells)
