"""Which questions are asked about which photo in which training step: a pure function of seed and epoch."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from typing import Any

from torch.utils.data import Dataset, Sampler

from .records import ImageGroup, Person

Chunk = tuple[int, int | None, tuple[int, ...]]
"""Person, photo, questions: indices of one image group; no photo where the person has none."""

Step = dict[str, list[Chunk]]
"""The image groups of one training step, by the stream they come from."""


class StepSampler(Sampler[Step]):
    """Draws the steps of an epoch.

    In an epoch every question of the first stream is asked once, spread over the person's photos. The other streams
    give as many image groups to every step and start over when they run out.

    Args:
        streams: people by stream name; the first is the one an epoch is made of.
        groups: image groups per step and stream.
        questions_per_image: most questions asked about one photo in a step.
        seed: of all draws.
        rank: which process this is.
        world_size: number of processes; each gets every ``world_size``-th step.

    Attributes:
        done: steps of the next epoch to leave out, since a resumed run has taken them.
    """

    def __init__(
        self,
        streams: dict[str, Sequence[Person]],
        groups: int,
        questions_per_image: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.streams, self.groups, self.questions_per_image = streams, groups, questions_per_image
        self.seed, self.rank, self.world_size, self.epoch = seed, rank, world_size, 0
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        first = next(iter(self.streams.values()))
        chunks = sum(math.ceil(len(p.vqa) / self.questions_per_image) for p in first)
        return math.ceil(math.ceil(chunks / self.groups) / self.world_size)

    def __iter__(self) -> Iterator[Step]:
        (main, people), *others = self.streams.items()
        chunks = self._shuffled(main, people, 0)
        steps = [chunks[i : i + self.groups] for i in range(0, len(chunks), self.groups)]
        supply = {name: self._endless(name, people) for name, people in others}
        done, self.done = self.done, 0
        for number in range(len(self) * self.world_size):  # the last round is filled up, so that no process waits
            step: Step = {main: steps[number % len(steps)]}
            step |= {name: [next(chunk) for _ in range(self.groups)] for name, chunk in supply.items()}
            if number % self.world_size == self.rank and number // self.world_size >= done:
                yield step

    def _endless(self, name: str, people: Sequence[Person]) -> Iterator[Chunk]:
        return chain.from_iterable(self._shuffled(name, people, turn) for turn in count())

    def _shuffled(self, name: str, people: Sequence[Person], turn: int) -> list[Chunk]:
        rng = random.Random(f"{self.seed}/{name}/{self.epoch}/{turn}")
        chunks: list[Chunk] = []
        for index, person in enumerate(people):
            order = rng.sample(range(len(person.vqa)), len(person.vqa))
            parts = math.ceil(len(order) / self.questions_per_image)
            drawn = rng.sample(range(len(person.images)), min(parts, len(person.images)))
            photos: list[int | None] = [*drawn] or [None]
            for part in range(parts):  # strides keep the parts equally long
                chunks.append((index, photos[part % len(photos)], tuple(order[part::parts])))
        rng.shuffle(chunks)
        return chunks


class PassSampler(Sampler[Step]):
    """Draws the steps of an epoch in which the streams take turns: a whole pass over one, then over the next.

    MLLMU-Bench's scripts do so (baselines/GA_Difference.py L409-441). Arguments and ``done`` are those of
    :class:`StepSampler`.
    """

    def __init__(self, streams: dict[str, Sequence[Person]], *args: int, **kwargs: int) -> None:
        self.passes = [StepSampler({name: people}, *args, **kwargs) for name, people in streams.items()]
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer."""
        for sampler in self.passes:
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return sum(map(len, self.passes))

    def __iter__(self) -> Iterator[Step]:
        done, self.done = self.done, 0
        return islice(chain.from_iterable(self.passes), done, None)


def epoch_steps(steps: int, limit: float) -> int:
    """Steps of an epoch under ``trainer.limit_train_batches``: a number of steps, or a share if it is no integer."""
    return max(1, min(steps, limit) if isinstance(limit, int) else int(steps * limit))


class Bundle:
    """What a dataloader hands over, image groups as a list or by stream: the trainer neither copies nor converts it."""

    def __init__(self, content: Any) -> None:
        self.content = content


class StepDataset(Dataset[Bundle]):
    """Looks up what a :class:`StepSampler` drew."""

    def __init__(self, streams: dict[str, Sequence[Person]]) -> None:
        self.streams = streams

    def __getitem__(self, step: Step) -> Bundle:
        """The image groups of a step, by stream."""
        return Bundle({n: [self._group(self.streams[n], chunk) for chunk in chunks] for n, chunks in step.items()})

    @staticmethod
    def _group(people: Sequence[Person], chunk: Chunk) -> ImageGroup:
        person = people[chunk[0]]
        image = None if chunk[1] is None else person.images[chunk[1]]
        return ImageGroup(person.id, image, vqa=tuple(person.vqa[i] for i in chunk[2]))
