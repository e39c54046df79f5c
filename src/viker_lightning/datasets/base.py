"""What a trainer sees of every benchmark: steps and evaluation questions, from a LightningDataModule."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from viker_lightning.cache import cache_folder
from viker_lightning.data.published import Published
from viker_lightning.data.records import ImageGroup, Person, Split, Training, asked
from viker_lightning.data.sampling import Bundle, PassSampler, StepDataset, StepSampler, epoch_steps
from viker_lightning.datasets.reading.row import Row
from viker_lightning.errors import DataError
from viker_lightning.files import replacing
from viker_lightning.hub import dataset_folder
from viker_lightning.runs import names

from . import checks

log = logging.getLogger(__name__)

GROUPS_PER_BATCH = 16
"""Evaluation groups between two ticks of the progress bar."""

Read = TypeVar("Read")


class Benchmark(LightningDataModule):
    """Serves training steps and evaluation questions; a benchmark says how its rows become people and questions.

    A new benchmark implements :meth:`read_training` and :meth:`read_split`, hands every row to :meth:`each` so that bad
    ones are treated as ``on_bad_row`` says, and names its embedded sizes, if it has any, in ``embedded``.

    Args:
        root: a folder, ``mini/...`` for an embedded benchmark (written on first use), or a dataset id on the hub.
        forget: percentage of people to forget; must be one of the stored splits.
        stage: what to train on. ``vanilla``: everybody; ``gold``: everybody but the forget set; ``unlearn``: steps of
            forget and retain questions.
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
        protocol: ``corrected``, or ``published``: trained, asked and scored as the benchmark's authors do.
    """

    embedded: ClassVar[tuple[str, ...]] = ()
    """Sizes of the embedded benchmark, for ``root: mini/<size>``."""

    published: ClassVar[Published | None] = None
    """How the authors train, if they have published it."""

    tests_other_photos: ClassVar[bool] = True
    """Whether the split ``test`` shows other photos than those trained on; if not, that is nothing to warn of."""

    paired: ClassVar[bool] = False
    """Whether a person's questions with image and without are the same ones, in the same order."""

    def __init__(
        self,
        root: str = "mini/default",
        forget: int = 10,
        stage: Literal["vanilla", "gold", "unlearn"] = "unlearn",
        batch_size: int = 16,
        questions_per_image: int = 8,
        splits: list[Literal["forget", "test", "retain", "real", "general"]] | None = None,
        modality: Literal["image", "text", "both"] = "image",
        max_people: int | None = None,
        seed: int = 0,
        on_bad_row: Literal["error", "skip"] = "error",
        revision: str | None = None,
        protocol: Literal["corrected", "published"] = "corrected",
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
        self.protocol = protocol
        self.as_published = self.published if protocol == "published" else None
        if protocol == "published" and self.as_published is None:
            raise DataError(f"data.protocol: found 'published', but {type(self).__name__} has only 'corrected'; set it")
        self.root, self.forget, self.stage, self.seed = root, forget, stage, seed
        self.batch_size, self.questions_per_image = batch_size, questions_per_image
        self.splits = [Split(name) for name in splits or Split]
        self.modality, self.max_people, self.on_bad_row = modality, max_people, on_bad_row
        self.revision = revision
        self.skipped: list[str] = []  # file, row and reason of every row left out
        self.warnings: list[str] = []  # what is suspicious about what was read
        self.batches_per_step = 1
        self.in_passes = False  # whether the streams take turns, a whole pass each
        self.steps_done = 0  # before this process, when a run is resumed
        self.forget_ids: list[str] = []
        self.retain_ids: list[str] = []
        self._groups: dict[tuple[Split, str], list[ImageGroup]] = {}
        self._people: dict[str, Person] | None = None
        self._base: list[Person] = []

    def read_training(self) -> Training:
        """Reads who is trained on, forgotten and retained."""
        raise NotImplementedError

    def read_split(self, split: Split, modality: str) -> list[ImageGroup]:
        """Reads the questions of an evaluation split; empty, with a message, if the data does not hold it."""
        raise NotImplementedError

    def embedded_version(self) -> str:
        """Version of the embedded benchmark, part of its folder's name."""
        raise NotImplementedError

    def write_embedded(self, folder: Path, size: str) -> None:
        """Writes the embedded benchmark."""
        raise NotImplementedError

    def embedded_grammar(self) -> re.Pattern[str]:
        """What every sentence of the embedded benchmark matches as a whole."""
        raise NotImplementedError

    @property
    def grammar(self) -> re.Pattern[str] | None:
        """What a well-formed answer matches as a whole; ``None`` but for embedded data: other language is open."""
        return self.embedded_grammar() if self.embedded and self._mini_size else None

    @property
    def records_private(self) -> bool:
        """Whether the benchmark records private parts (else they are inferred)."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where the files are."""
        if self._mini_size:
            return cache_folder("benchmarks", f"mini-{self._mini_size}-{self.embedded_version()}")
        return Path(self.root) if Path(self.root).is_dir() else dataset_folder(self.root, self.revision, there=True)

    @property
    def _mini_size(self) -> str | None:
        name, _, size = self.root.partition("/")
        if name != "mini" or Path(self.root).is_dir():
            return None
        if size not in self.embedded:
            sizes = ", ".join(f"mini/{size}" for size in self.embedded) or f"{type(self).__name__} has none"
            raise DataError(f"data.root: {self.root!r} is not a folder; embedded sizes: {sizes}")
        return size

    def prepare_data(self) -> None:
        """Writes the embedded benchmark, or downloads a hub dataset; does nothing for a folder."""
        if self._mini_size:
            self.write_embedded(self.folder, self._mini_size)
        elif not Path(self.root).is_dir():
            dataset_folder(self.root, self.revision)

    def setup(self, stage: str | None = None) -> None:
        """Reads training people and split lists; evaluation rows are read when asked for.

        Raises:
            DataError: naming what is wrong, e.g. an ID that two people share, or that nobody is left to forget.
        """
        if self._people is not None:
            return
        self._forget_earlier()
        training = self._reported(self.read_training)
        people: dict[str, Person] = {}
        for person in training.people:
            if person.id in people:
                raise DataError(f"{self.root}: two people have the ID {person.id!r}; rename one of them")
            people[person.id] = person
        if not training.forget:
            found = f"nobody is left to forget, {len(self.skipped)} bad rows being skipped"
            raise DataError(f"{self.root}: {found}; give the forget set a person")
        self.forget_ids, self.retain_ids, self._base = training.forget, training.retain, training.base
        self._people = people
        self._warn(checks.of_people(self.people(self.forget_ids), self.people(self.retain_ids)))

    def people(self, ids: list[str] | None = None) -> list[Person]:
        """People who are forgotten or retained, by ID; all of them by default."""
        assert self._people is not None, "call setup() first"
        return [self._people[i] for i in ids] if ids is not None else list(self._people.values())

    @property
    def streams(self) -> dict[str, Sequence[Person]]:
        """People by stream for this stage; there is no retain stream where nobody is retained."""
        if self.stage == "unlearn":
            both = {"forget": self.people(self.forget_ids), "retain": self.people(self.retain_ids)}
            return {name: people for name, people in both.items() if people}
        everybody = [*self.people(), *self._base]
        left_out = set(self.forget_ids) if self.stage == "gold" else set()
        return {"train": [p for p in everybody if p.id not in left_out]}

    def texts(self) -> list[str]:
        """All training text, for a tokenizer."""
        return [t for p in [*self.people(), *self._base] for vqa in p.vqa for t in (vqa.question, vqa.answer)]

    def fingerprint(self) -> str:
        """A hash of what is trained on: texts, labels, images and which people are to be forgotten."""
        split = json.dumps([self.forget_ids, self.retain_ids])
        return hashlib.sha256(f"{split}{self.everybody()}".encode()).hexdigest()

    def everybody(self) -> str:
        """A hash of all training people, whoever is to be forgotten: a vanilla model depends on nothing else."""
        people = [repr((p.id, [picture.key for picture in p.images], p.vqa)) for p in [*self.people(), *self._base]]
        return hashlib.sha256("\n".join([repr(self.as_published), *sorted(people)]).encode()).hexdigest()

    def vanilla_options(self) -> list[str]:
        """Command-line options that make another run use the same people, whichever data its config names."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        options = {"class_path": name} | {
            k: getattr(self, k) for k in ("root", "forget", "on_bad_row", "protocol", "revision")
        }
        return [f"--data.{key}={value}" for key, value in options.items() if value is not None]

    def train_dataloader(self) -> DataLoader[Any]:
        """Steps as lists of image groups by stream; each process gets its own steps."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        groups = max(1, self.batch_size // self.questions_per_image) * self.batches_per_step
        most = min(self.questions_per_image, self.batch_size)
        sampler_class = PassSampler if self.in_passes else StepSampler
        sampler = sampler_class(self.streams, groups, most, self.seed, rank, world)
        limit = self.trainer.limit_train_batches if self.trainer else 1.0
        sampler.done = self.steps_done % epoch_steps(len(sampler), limit)
        apart = torch.Generator()  # a loader draws a number whenever it starts, which a resumed run does once more
        return DataLoader(StepDataset(self.streams), sampler=sampler, batch_size=None, generator=apart)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """What validate reads. In fit it is empty: there the Evaluation callback decides when to evaluate."""
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return [] if fitting else [self.evaluation_dataloader()]

    def evaluation_dataloader(self) -> DataLoader[Any]:
        """Evaluation groups, split by split and those of like length together; each process gets its own.

        All processes have as many batches. Questions of one split and modality may share example questions.
        """
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        step = GROUPS_PER_BATCH * world
        groups = sorted(self.evaluation_groups(), key=lambda g: (str(g.split), g.image is None, asked(g)))
        batches = [Bundle(groups[i + rank : i + step : world]) for i in range(0, len(groups), step)]
        return DataLoader(batches, batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Any]:
        """The same as for validation: there is one evaluation."""
        return self.evaluation_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """The same as for validation."""
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
            self._groups[key] = found = self._reported(lambda: self.read_split(*key))
            apart = split in (Split.REAL, Split.GENERAL) or (split == Split.TEST and self.tests_other_photos)
            forget = self.people(self.forget_ids) if apart else []
            forgotten = {picture.key for person in forget for picture in person.images}
            self._warn(checks.of_groups(found, str(split), forgotten))
        return self._groups[key]

    def few(self, split: Split, people: Iterable[str]) -> list[str]:
        """Whom of a split to evaluate: at most ``max_people``, the same for every seed, so that runs compare."""
        distinct = list(dict.fromkeys(people))
        if self.max_people is not None and len(distinct) > self.max_people:
            distinct = random.Random(f"0/{split}").sample(distinct, self.max_people)
        return distinct

    def refuse(self, error: DataError) -> None:
        """Treats a bad row as ``on_bad_row`` says: raises its error, or notes it in ``skipped``."""
        if self.on_bad_row == "error":
            raise error
        if str(error) not in self.skipped:
            self.skipped.append(str(error))

    def each(self, rows: Iterable[Row], read: Callable[[Row], Read]) -> list[Read]:
        """Reads rows one by one, refusing the bad ones."""
        found = []
        for row in rows:
            try:
                found.append(read(row))
            except DataError as error:
                self.refuse(error)
        return found

    def _reported(self, read: Callable[[], Read]) -> Read:
        """Reads, and says which rows were skipped meanwhile.

        Raises:
            DataError: naming a file or folder that the system does not let be read.
        """
        before = len(self.skipped)
        try:
            found = read()
        except OSError as error:
            named = f"{error.filename or self.root}: cannot be read ({error.strerror or error})"
            raise DataError(f"{named}; make it readable, or give another") from error
        new = self.skipped[before:]
        if new:
            file = self._skipped_file()
            if file is not None:
                with replacing(file) as temporary:
                    temporary.write_text("".join(f"{line}\n" for line in self.skipped), "utf-8", "backslashreplace")
            listed = file or "the datamodule's `skipped`"
            log.warning("%s: %d bad rows skipped, all listed in %s; the first: %s", self.root, len(new), listed, new[0])
        return found

    def _forget_earlier(self) -> None:
        """Removes the list of what an earlier run in the same folder skipped."""
        if (file := self._skipped_file()) is not None:
            file.unlink(missing_ok=True)

    def _skipped_file(self) -> Path | None:
        """Where skipped rows are listed; ``None`` without a trainer, and on all processes but the first."""
        if self.trainer is None or not self.trainer.is_global_zero:
            return None
        command = self.trainer.state.fn
        name = names.of_command(names.SKIPPED, command.value if command else None)
        return Path(self.trainer.default_root_dir) / name

    def _warn(self, lines: Iterable[str]) -> None:
        """Says what is suspicious, once."""
        for line in lines:
            if line not in self.warnings:
                self.warnings.append(line)
                log.warning("%s: %s", self.root, line)
