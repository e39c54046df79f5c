"""MLLMU-Bench (arXiv 2410.22108), or any folder in its schema, as a LightningDataModule."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from . import mini
from .cache import cache_folder
from .mllmu_rows import TASKS, image_group, metadata
from .parquet import DataError, read_rows, row_of
from .private import infer_private
from .records import ImageGroup, Person, Split, asked
from .sampling import Bundle, StepDataset, StepSampler

log = logging.getLogger(__name__)

GROUPS_PER_BATCH = 16
"""Evaluation groups between two ticks of the progress bar."""


class MLLMU(LightningDataModule):
    """Serves training steps and evaluation questions from the MLLMU-Bench schema.

    Training rows are the ``metadata`` questions of ``ft_Data``, joined to the stored split lists by ID; evaluation
    asks the separate classification, generation and cloze tasks. Two optional folders extend the schema: ``base_Data``
    (same columns as ``ft_Data``: what a pretrained model would know anyway, used only to train the vanilla and the
    gold model) and ``General_Set`` (same columns as ``Retain_Set``). A column ``images`` in ``ft_Data`` holds further
    photos for training; a key ``Private`` beside an answer holds its private parts, which are inferred where it is
    missing.

    Args:
        root: a folder, ``mini/ci``, ``mini/default`` or ``mini/large`` for the embedded benchmark (written on first
            use), or a dataset id on the hub.
        forget: percentage of people to forget; must be one of the stored splits.
        stage: what to train on. ``vanilla``: everybody; ``gold``: everybody but the forget set; ``unlearn``: steps of
            forget and retain questions.
        batch_size: questions per training step and stream.
        questions_per_image: most questions asked about one photo in a step.
        splits: which splits are evaluated, those the folder does not hold being left out with a message; ``None`` is
            all.
        modality: ``image`` asks about the photo, ``text`` names the person instead, without any image.
        max_people: evaluates at most so many people of every split (drawn by seed); ``None`` is all.
        seed: of the order of steps and the choice of test photos.
    """

    def __init__(
        self,
        root: str = "mini/default",
        forget: int = 10,
        stage: Literal["vanilla", "gold", "unlearn"] = "unlearn",
        batch_size: int = 16,
        questions_per_image: int = 8,
        splits: list[Literal["forget", "test", "retain", "real", "general"]] | None = None,
        modality: Literal["image", "text"] = "image",
        max_people: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or questions_per_image < 1:
            raise DataError(f"batch_size={batch_size} and questions_per_image={questions_per_image} must be at least 1")
        self.root, self.forget, self.stage, self.seed = root, forget, stage, seed
        self.batch_size, self.questions_per_image = batch_size, questions_per_image
        self.splits = [Split(name) for name in splits or Split]
        self.modality, self.max_people = modality, max_people
        self._first_metadata = ""
        self.batches_per_step = 1
        self.steps_done = 0  # of the running epoch, when a run is resumed
        self._groups: dict[tuple[Split, str], list[ImageGroup]] = {}
        self._people: dict[str, Person] | None = None
        self._base: list[Person] = []

    @property
    def folder(self) -> Path:
        """Where the parquet folders are."""
        if self._mini_size:
            return cache_folder("benchmarks", f"mini-{self._mini_size}-{mini.VERSION}")
        return Path(self.root) if Path(self.root).is_dir() else self._hub_folder(local_files_only=True)

    @property
    def _mini_size(self) -> str | None:
        name, _, size = self.root.partition("/")
        if name != "mini" or Path(self.root).is_dir():
            return None
        if size not in mini.SIZES:
            raise DataError(
                f"data.root: {self.root!r} is not a folder; embedded sizes: mini/{', mini/'.join(mini.SIZES)}"
            )
        return size

    def prepare_data(self) -> None:
        """Writes the embedded benchmark, or downloads a hub dataset; does nothing for a folder."""
        if self._mini_size:
            mini.write_benchmark(self.folder, self._mini_size)
        elif not self.folder.is_dir():
            self._hub_folder()

    def _hub_folder(self, **options: Any) -> Path:
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.root, repo_type="dataset", **options))
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(
                f"data.root: {self.root!r} is neither a folder nor a dataset to be had ({reason})"
            ) from error

    def setup(self, stage: str | None = None) -> None:
        """Reads training people and split lists; evaluation rows are read when asked for."""
        if self._people is not None:
            return
        self.forget_ids, self.retain_ids = (self._ids(f"{kind}_{n}") for kind, n in self._split_names())
        trained = self._read_people("ft_Data")
        base = self._read_people("base_Data") if (self.folder / "base_Data").is_dir() else []
        for config, ids in (("forget", self.forget_ids), ("retain", self.retain_ids)):
            known = {p.id for p in trained}
            unknown = [i for i in ids if i not in known]
            if unknown:
                raise DataError(
                    f"{self.folder}/{config}_*: ID {unknown[0]!r} has no row in ft_Data; add it there or drop it"
                )
        marked = infer_private([*trained, *base]) if not self.records_private else [*trained, *base]
        self._people = {p.id: p for p in marked[: len(trained)]}
        self._base = marked[len(trained) :]

    def people(self, ids: list[str] | None = None) -> list[Person]:
        """Training people by ID, all of ``ft_Data`` by default."""
        assert self._people is not None, "call setup() first"
        return [self._people[i] for i in ids] if ids is not None else list(self._people.values())

    @property
    def streams(self) -> dict[str, Sequence[Person]]:
        """People by stream for this stage."""
        if self.stage == "unlearn":
            return {"forget": self.people(self.forget_ids), "retain": self.people(self.retain_ids)}
        everybody = [*self.people(), *self._base]
        left_out = set(self.forget_ids) if self.stage == "gold" else set()
        return {"train": [p for p in everybody if p.id not in left_out]}

    def texts(self) -> list[str]:
        """All training text, for a tokenizer."""
        return [t for p in [*self.people(), *self._base] for vqa in p.vqa for t in (vqa.question, vqa.answer)]

    def fingerprint(self) -> str:
        """A hash of all training people: texts, images and which of them are to be forgotten."""
        digest = hashlib.sha256(json.dumps([self.forget_ids, self.retain_ids]).encode())
        for person in [*self.people(), *self._base]:
            digest.update(repr((person.id, [p.key for p in person.images], person.vqa)).encode())
        return digest.hexdigest()

    def train_dataloader(self) -> DataLoader[Any]:
        """Steps as lists of image groups by stream; each process gets its own steps."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        groups = max(1, self.batch_size // self.questions_per_image) * self.batches_per_step
        most = min(self.questions_per_image, self.batch_size)
        sampler = StepSampler(self.streams, groups, most, self.seed, rank, world, self.steps_done)
        return DataLoader(StepDataset(self.streams), sampler=sampler, batch_size=None)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """What validate reads. In fit it is empty: there the Evaluation callback decides when to evaluate."""
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return [] if fitting else [self.evaluation_dataloader()]

    def evaluation_dataloader(self) -> DataLoader[Any]:
        """Evaluation groups, a few a batch, those of like length together; each process gets its own."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        groups = sorted(self.evaluation_groups(), key=asked)[rank::world]
        batches = [Bundle(groups[i : i + GROUPS_PER_BATCH]) for i in range(0, len(groups), GROUPS_PER_BATCH)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Any]:
        """The same as for validation: there is one evaluation."""
        return self.evaluation_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """The same as for validation."""
        return self.evaluation_dataloader()

    def evaluation_groups(self) -> list[ImageGroup]:
        """One image group for every person of every evaluated split that the folder holds."""
        return [group for split in self.splits for group in self.evaluation(split)]

    @property
    def records_private(self) -> bool:
        """Whether the benchmark records private parts (else they are inferred)."""
        return '"Private"' in self._first_metadata

    def _split_names(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("forget", self.forget), ("retain", 100 - self.forget)

    def _ids(self, config: str) -> list[str]:
        if not (self.folder / config).is_dir():
            there = sorted(p.name for p in self.folder.glob("forget_*"))
            raise DataError(
                f"{self.folder}: no split {config!r}; set data.forget to one of: {', '.join(there) or 'none found'}"
            )
        return list(row_of(read_rows(self.folder / config, ["ID"])))

    def _read_people(self, config: str) -> list[Person]:
        rows = row_of(read_rows(self.folder / config, ["image", "ID", "metadata"], ["images"]))
        if config == "ft_Data":
            self._first_metadata = next(iter(rows.values())).text("metadata") if rows else ""
        return [
            Person(key, row.pictures("images") if row.get("images") else (row.picture("image"),), metadata(row))
            for key, row in rows.items()
        ]

    def evaluation(self, split: Split, modality: str | None = None) -> list[ImageGroup]:
        """One image group for every person of a split; empty, with a message, if the folder does not hold it."""
        key = (split, modality or self.modality)
        if key not in self._groups:
            self._groups[key] = self._evaluation(*key)
        return self._groups[key]

    def _evaluation(self, split: Split, modality: str) -> list[ImageGroup]:
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
        rows = row_of(read_rows(self.folder / config, [*TASKS, "images" if split == Split.TEST else "image"]))
        chosen = [row for key, row in rows.items() if split != Split.TEST or key in set(self.forget_ids)]
        if self.max_people is not None and len(chosen) > self.max_people:
            chosen = random.Random(f"{self.seed}/{split}").sample(chosen, self.max_people)
        groups = [image_group(row, split, modality, self.seed) for row in chosen]
        if self.records_private:
            return groups
        asked = [Person(group.person, (), group.vqa) for group in groups]
        marked = infer_private([*self.people(), *asked])[-len(asked) :]
        return [replace(group, vqa=person.vqa) for group, person in zip(groups, marked, strict=True)]
