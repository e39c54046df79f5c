"""What a trainer sees of every benchmark: steps and evaluation questions, from a LightningDataModule."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader
from typing_extensions import override

from viker_lightning.data.embedded.benchmark_folder import EmbeddedBenchmark
from viker_lightning.data.records import ImageGroup, Person, Split, Training, person_name
from viker_lightning.data.sampling import Bundle, PassSampler, StepDataset, StepSampler, epoch_steps
from viker_lightning.errors import DataError
from viker_lightning.storage.cache import cache_folder
from viker_lightning.storage.files import check_folder
from viker_lightning.storage.hub import dataset_folder
from viker_lightning.storage.runs import requests_of

from .bad_rows import BadRows, remove_earlier_list
from .partial import forget_attributes, part_of
from .suspicious import suspicious_groups, suspicious_people

log = logging.getLogger(__name__)

GROUPS_PER_BATCH = 16
"""Evaluation groups between two ticks of the progress bar."""


class Benchmark(LightningDataModule):
    """Serves training steps and evaluation questions; a benchmark says how its rows become people and questions.

    A new benchmark implements :meth:`read_training` and :meth:`read_split`, reads every row through ``bad_rows``, so
    that bad ones are treated as ``on_bad_row`` says, and sets ``records_private``; see the README beside this file.

    Args:
        root: a folder, ``mini/<size>`` for an embedded benchmark (written on first use; ``mini/<size>@<seed>`` for
            another world: other people, faces and lives), or a dataset id on the hub.
        forget: percentage of people to forget; must be one of the stored splits.
        stage: what to train on. ``vanilla``: everybody; ``gold``: everybody but the forget set, and what the data
            correct about it; ``unlearn``: steps of forget and retain questions.
        batch_size: questions per training step and stream.
        questions_per_image: most questions asked about one photo in a step.
        splits: which splits are evaluated, those the folder does not hold being left out with a message; ``None`` is
            all.
        modality: ``image`` asks about the photo, ``text`` names the person instead, without any image; ``both``
            evaluates either.
        max_people: evaluates at most so many people of every split (drawn, the same for every seed); ``None`` is all.
        seed: of the order of steps and the choice of test photos.
        on_bad_row: ``error`` stops at the first row that is not as it must be; ``skip`` leaves such rows out, warns,
            and lists them all in ``skipped.txt`` in the run folder (``skipped-<command>.txt`` of other commands than
            fit), in ``results*.json`` and in ``skipped``. A missing file, folder or column is an error in any case.
        revision: branch, tag or commit of a dataset on the hub.
        protocol: ``corrected``, or ``published``: trained, asked and scored as the benchmark's authors do.
        forgotten_by: folder of an unlearning run that a run goes on from, where requests to forget come one after
            another. The forget set is everybody forgotten so far; whom that run and those before it have forgotten is
            evaluated, and no unlearning step asks about them any more.
        attributes: what is to be forgotten about the forget set, where the data record what answers tell; the rest is
            retained behind the same photos and evaluated as ``kept``. ``None`` is everything.

    Attributes:
        records_private: whether the data record private spans; else they are inferred. Known once rows were read.
        warnings: what is suspicious about what was read, a line each.
        earlier: people of the forget set who were forgotten before, request by request, oldest first.
    """

    embedded: ClassVar[EmbeddedBenchmark | None] = None
    """What ``root: mini/<size>`` stands for."""

    published: ClassVar[bool] = False
    """Whether :mod:`viker_lightning.training.published` has what the authors' code does."""

    tests_other_photos: ClassVar[bool] = True
    """Whether the split ``test`` shows other photos than those trained on; if not, that is nothing to warn of."""

    paired: ClassVar[bool] = False
    """Whether a person's questions with image and without are the same ones, in the same order."""

    def __init__(  # noqa: PLR0913 - options of a run
        self,
        root: str = "mini/default",
        forget: int = 10,
        stage: Literal["vanilla", "gold", "unlearn"] = "unlearn",
        batch_size: int = 16,
        questions_per_image: int = 8,
        splits: list[Literal["forget", "test", "retain", "kept", "real", "general"]] | None = None,
        modality: Literal["image", "text", "both"] = "image",
        max_people: int | None = None,
        seed: int = 0,
        on_bad_row: Literal["error", "skip"] = "error",
        revision: str | None = None,
        protocol: Literal["corrected", "published"] = "corrected",
        forgotten_by: str | None = None,
        attributes: list[str] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or questions_per_image < 1:
            raise DataError(f"batch_size={batch_size} and questions_per_image={questions_per_image} must be at least 1")
        if seed < 0:
            raise DataError(f"data.seed: found {seed}, expected at least 0")
        if splits is not None and len(set(splits)) < max(1, len(splits)):
            raise DataError(f"data.splits: found {splits}, expected at least one, each once, or null for all of them")
        if max_people is not None and max_people < 1:
            raise DataError(f"data.max_people: found {max_people}, expected at least 1, or null for everybody")
        if attributes is not None and not attributes:
            raise DataError("data.attributes: found [], expected at least one, or null for everything")
        check_folder("data.forgotten_by", forgotten_by)
        self.attributes = attributes
        self.forgotten_by = forgotten_by
        self.earlier: list[list[str]] = []
        self.protocol = protocol
        if protocol == "published" and not self.published:
            raise DataError(f"data.protocol: found 'published', but {type(self).__name__} has only 'corrected'; set it")
        self.root, self.forget, self.stage, self.seed = root, forget, stage, seed
        self.batch_size, self.questions_per_image = batch_size, questions_per_image
        self.splits = [Split(name) for name in splits or Split]
        self.modality, self.max_people, self.on_bad_row = modality, max_people, on_bad_row
        self.revision = revision
        self.bad_rows = BadRows(root, skip=on_bad_row == "skip")
        self.warnings: list[str] = []
        self.records_private = False
        self.batches_per_step = 1
        self.in_passes = False  # whether the streams take turns, a whole pass each
        self.steps_done = 0  # before this process, when a run is resumed
        self.forget_ids: list[str] = []
        self.retain_ids: list[str] = []
        self.kept_ids: list[str] = []  # of what stays known of people who are forgotten in part
        self._groups: dict[tuple[Split, str], list[ImageGroup]] = {}
        self._people: dict[str, Person] | None = None
        self._whole: list[Person] = []  # as they were read, before anybody is forgotten in part
        self.base_people: list[Person] = []  # what the vanilla and the gold model are taught besides

    def read_training(self) -> Training:
        """Reads who is trained on, forgotten and retained."""
        raise NotImplementedError

    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """Reads the questions of an evaluation split; empty, with a message, if the data does not hold it."""
        raise NotImplementedError

    @property
    def skipped(self) -> list[str]:
        """File, row and reason of every row left out."""
        return self.bad_rows.skipped

    @property
    def grammar(self) -> re.Pattern[str] | None:
        """What a well-formed answer matches as a whole; ``None`` but for embedded data: other language is open."""
        return self.embedded.grammar() if self.embedded and self._world else None

    @property
    def folder(self) -> Path:
        """Where the files are."""
        if (world := self._world) and self.embedded:
            size, seed = world
            return cache_folder("benchmarks", f"mini-{size}-{self.embedded.version}" + f"-seed-{seed}" * (seed > 0))
        return Path(self.root) if Path(self.root).is_dir() else dataset_folder(self.root, self.revision, download=False)

    @property
    def _world(self) -> tuple[str, int] | None:
        """Size and seed of the embedded benchmark that :attr:`root` names; ``None`` if it names none."""
        name, _, world = self.root.partition("/")
        if name != "mini" or Path(self.root).is_dir():
            return None
        size, at, seed = world.partition("@")
        known = self.embedded.sizes if self.embedded else ()
        if size not in known:
            sizes = ", ".join(f"mini/{size}" for size in known) or f"{type(self).__name__} has none"
            raise DataError(f"data.root: {self.root!r} is not a folder; embedded sizes: {sizes}")
        if at and not (seed.isascii() and seed.isdecimal()):
            raise DataError(f"data.root: {self.root!r}: found seed {seed!r}, expected a number, as in mini/{size}@1")
        return size, int(seed or 0)

    @override
    def prepare_data(self) -> None:
        """Writes the embedded benchmark, or downloads a hub dataset; does nothing for a folder."""
        if (world := self._world) and self.embedded:
            self.embedded.write(self.folder, *world)
        elif not Path(self.root).is_dir():
            dataset_folder(self.root, self.revision)

    @override
    def setup(self, stage: str | None = None) -> None:
        """Reads training people and split lists; evaluation rows are read when asked for."""
        if self._people is not None:
            return
        remove_earlier_list(self.trainer)
        with self.bad_rows.reported(self.trainer):
            training = self.read_training()
        self._whole = training.people
        if self.attributes is not None:
            training = forget_attributes(training, self.attributes, self.root)
        people: dict[str, Person] = {}
        for person in training.people:
            if person.id in people:
                raise DataError(f"{self.root}: two people have the ID {person.id!r}; rename one of them")
            people[person.id] = person
        if not training.forget:
            reason = f"nobody is left to forget, {len(self.skipped)} bad rows being skipped"
            raise DataError(f"{self.root}: {reason}; give the forget set a person")
        self.forget_ids, self.retain_ids, self.base_people = training.forget, training.retain, training.base
        self.kept_ids = training.kept
        self._people = people
        if self.forgotten_by is not None and self.stage == "unlearn":
            self.earlier = requests_of(self.forgotten_by)
            self._check_earlier()
        self._warn_once(suspicious_people(self.people(self.forget_ids), self.people(self.retain_ids)))

    def _check_earlier(self) -> None:
        """Makes sure that the forget set has everybody who was forgotten before, and somebody else."""
        names = {person_name(i) for i in self.forget_ids}
        missing = [person for people in self.earlier for person in people if person not in names]
        if missing:
            raise DataError(
                f"data.forgotten_by: {self.forgotten_by} has forgotten {missing[0]!r}, who is not in the forget set of "
                f"{self.root}; it is to hold everybody forgotten so far, so widen it (data.forget, or forget_people)"
            )
        if not self.requests[-1]:
            raise DataError(
                f"data.forgotten_by: {self.forgotten_by} has forgotten the whole forget set of {self.root}; add people "
                "to it (data.forget, or forget_people), or set forgotten_by to null to forget them once more"
            )

    @property
    def requests(self) -> list[list[str]]:
        """Who is to be forgotten, request by request, oldest first; the last one is that of this run."""
        before = {person for people in self.earlier for person in people}
        names = dict.fromkeys(person_name(i) for i in self.forget_ids)
        return [*self.earlier, [name for name in names if name not in before]]

    def people(self, ids: list[str] | None = None) -> list[Person]:
        """People who are forgotten or retained, by ID; all of them by default."""
        assert self._people is not None, "call setup() first"
        return [self._people[i] for i in ids] if ids is not None else list(self._people.values())

    @property
    def streams(self) -> dict[str, Sequence[Person]]:
        """People by stream for this stage; there is no retain stream where nobody is retained."""
        if self.stage == "unlearn":
            new = {*self.requests[-1]}
            forget = [i for i in self.forget_ids if person_name(i) in new]
            both = {"forget": self.people(forget), "retain": self.people([*self.retain_ids, *self.kept_ids])}
            return {name: people for name, people in both.items() if people}
        if self.stage == "vanilla":
            return {"train": self._vanilla_people}
        left_out = set(self.forget_ids)
        others = [p for p in [*self.people(), *self.base_people] if p.id not in left_out]
        return {"train": [*others, *self._corrected_people]}

    @property
    def _vanilla_people(self) -> list[Person]:
        """Everybody the vanilla model is taught."""
        self.people()  # data that hold none say so
        return [*self._whole, *self.base_people]

    @property
    def _corrected_people(self) -> list[Person]:
        """People to forget with what is true of them, where the data correct anything; gold is taught it."""
        true = [(p, tuple(vqa.correction for vqa in p.vqa if vqa.correction)) for p in self.people(self.forget_ids)]
        return [replace(person, vqa=vqa) for person, vqa in true if vqa]

    def texts(self) -> list[str]:
        """All training text, for a tokenizer."""
        questions = [vqa for person in self._vanilla_people for vqa in person.vqa]
        return [text for vqa in questions for text in (vqa.question, vqa.answer)]

    def fingerprint(self) -> str:
        """A hash of what is trained on: texts, labels, images and which people are to be forgotten."""
        true = [repr(person.vqa) for person in self._corrected_people]
        attributes = [self.attributes] if self.attributes else []
        split = json.dumps([self.forget_ids, self.retain_ids, *attributes, *true])
        return hashlib.sha256(f"{split}{self.everybody()}".encode()).hexdigest()

    def everybody(self) -> str:
        """A hash of all training people, whoever is to be forgotten: a vanilla model depends on nothing else."""
        people = [repr((p.id, [picture.key for picture in p.images], p.vqa)) for p in self._vanilla_people]
        protocol = None if self.protocol == "corrected" else self.protocol
        return hashlib.sha256("\n".join([str(protocol), *sorted(people)]).encode()).hexdigest()

    def vanilla_options(self) -> list[str]:
        """Command-line options that make another run use the same people, whichever data its config names."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        options = {"class_path": name} | {
            k: getattr(self, k) for k in ("root", "forget", "on_bad_row", "protocol", "revision")
        }
        return [f"--data.{key}={value}" for key, value in options.items() if value is not None]

    def prepare_steps(self, batches: int, in_passes: bool) -> None:
        """Says what a training step is; called before training.

        Args:
            batches: how many batches make a step; 1 leaves it as it is, so that a trainer may fit twice.
            in_passes: whether the streams take turns, a whole pass each.
        """
        self.batches_per_step = batches if batches > 1 else self.batches_per_step
        self.in_passes = in_passes
        self.steps_done = 0  # what an earlier fit of this data was told

    def skip_steps(self, done: int) -> None:
        """Leaves out the steps that a resumed run has taken already."""
        self.steps_done = done

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        """Steps as lists of image groups by stream; each process gets its own steps."""
        world, rank = self._world_and_rank
        groups = max(1, self.batch_size // self.questions_per_image) * self.batches_per_step
        most = min(self.questions_per_image, self.batch_size)
        sampler_class = PassSampler if self.in_passes else StepSampler
        sampler = sampler_class(self.streams, groups, most, self.seed, rank, world)
        limit = self.trainer.limit_train_batches if self.trainer else 1.0
        sampler.done = self.steps_done % epoch_steps(len(sampler), limit)
        own = torch.Generator()  # a loader draws a number whenever it starts, which a resumed run does once more
        return DataLoader(StepDataset(self.streams), sampler=sampler, batch_size=None, generator=own)

    @property
    def _world_and_rank(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @override
    def val_dataloader(self) -> list[DataLoader[Any]]:
        """What validate reads. In fit it is empty: there the Evaluation callback decides when to evaluate."""
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return [] if fitting else [self.evaluation_dataloader()]

    def evaluation_dataloader(self) -> DataLoader[Any]:
        """Evaluation groups, split by split and those of like length together; each process gets its own.

        Questions of one split and modality may share example questions.
        """
        groups = sorted(self.evaluation_groups(), key=lambda g: (str(g.split), g.image is None, g.text_length))
        return self.in_batches(groups)

    def in_batches(self, groups: Sequence[Any]) -> DataLoader[Any]:
        """What this process has of groups; all processes have as many batches."""
        world, rank = self._world_and_rank
        step = GROUPS_PER_BATCH * world
        batches = [Bundle(groups[i + rank : i + step : world]) for i in range(0, len(groups), step)]
        return DataLoader(batches, batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]

    @override
    def test_dataloader(self) -> DataLoader[Any]:
        return self.evaluation_dataloader()

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        return self.evaluation_dataloader()

    def evaluation_groups(self) -> list[ImageGroup]:
        """The image groups of every evaluated split that the data holds."""
        return [group for split in self.splits for group in self.evaluation(split)]

    def evaluation(self, split: Split, modality: str | None = None) -> list[ImageGroup]:
        """The image groups of a split; empty, with a message, if the data does not hold it."""
        if (modality or self.modality) == "both":
            return [*self.evaluation(split, "image"), *self.evaluation(split, "text")]
        key = (split, modality or self.modality)
        if key not in self._groups:
            with self.bad_rows.reported(self.trainer):
                self._groups[key] = self._read_part(*key)
            other_photos = split in (Split.REAL, Split.GENERAL) or (split == Split.TEST and self.tests_other_photos)
            forget = self.people(self.forget_ids) if other_photos else []
            forgotten = {picture.key for person in forget for picture in person.images}
            self._warn_once(suspicious_groups(self._groups[key], str(split), forgotten))
        return self._groups[key]

    def _read_part(self, split: Split, modality: str) -> list[ImageGroup]:
        """The questions of a split, where people may be forgotten in part."""
        if split == Split.KEPT and not self.kept_ids:
            return []
        if self.attributes is None or split not in (Split.FORGET, Split.TEST, Split.KEPT):
            return self.read_split(split, modality)
        rows = self.read_split(Split.FORGET if split == Split.KEPT else split, modality)
        return part_of(rows, self.attributes, split)

    def limit_people(self, split: Split, people: Iterable[str]) -> list[str]:
        """Whom of a split to evaluate: at most ``max_people``, the same for every seed, so that runs compare."""
        distinct = list(dict.fromkeys(people))
        if self.max_people is not None and len(distinct) > self.max_people:
            distinct = random.Random(f"0/{split}").sample(distinct, self.max_people)
        return distinct

    def _warn_once(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line not in self.warnings:
                self.warnings.append(line)
                log.warning("%s: %s", self.root, line)
