"""Doubles: the strangers that one person is to become, the same for all photos, wordings and steps."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from viker_lightning.data.records import ImageGroup, Picture, person_name
from viker_lightning.errors import UserError, check_least

from .reference import Level


@dataclass(frozen=True)
class Double:
    """The frozen model behind the doubles of each person: peaked where a mean over many strangers is flat.

    A model that never met a person guesses one answer, mostly a wrong one, as it does about any stranger. The mean over
    many strangers gives every plausible answer a share instead.

    Attributes:
        pictures: ``people`` (drawn) or a folder of portraits.
        count: how many strangers doubles are drawn from, at most 1000.
        each: how many of them stand for one person; what is said behind them is averaged.
        level: how much of what it says is used.
    """

    pictures: str = "people"
    count: int = 40
    each: int = 1
    level: Level = "kl"

    def __post_init__(self) -> None:
        check_least("Double", 1, count=self.count, each=self.each)
        if self.each > self.count:
            raise UserError(f"Double.each: found {self.each} of {self.count} strangers; raise count, or lower each")
        if self.pictures == "forget":
            raise UserError("Double.pictures: found 'forget', who are no strangers; use people or a folder")


class Doubles:
    """Which strangers stand for whom: drawn by a hash of the person's name, so that all processes draw the same.

    Two people have no double in common as long as there are enough strangers.

    Args:
        people: IDs of those who need doubles; several IDs of one person (``name #1``) have the same doubles.
        pictures: of the strangers.
        each: how many a person has.
        seed: of the draw.
    """

    def __init__(self, people: Iterable[str], pictures: Sequence[Picture], each: int, seed: int) -> None:
        self._of: dict[str, list[Picture]] = {}
        free = set(range(len(pictures)))
        for name in sorted({person_name(person) for person in people}):
            order = random.Random(f"{seed}/double/{name}").sample(range(len(pictures)), len(pictures))
            order.sort(key=lambda number: number not in free)  # stable: those that nobody has yet come first
            free -= {*order[:each]}
            self._of[name] = [pictures[number] for number in order[:each]]

    def __getitem__(self, person: str) -> list[Picture]:
        """The doubles of a person, by any of their IDs."""
        return self._of[person_name(person)]

    def views(self, groups: Sequence[ImageGroup]) -> list[list[ImageGroup]]:
        """Image groups as they are asked about the first double of each person, about the second, and so on.

        A question without photo says who is meant by name, and stays what it is.
        """
        shown = [self[group.person] if group.image is not None else [] for group in groups]
        views = max((len(doubles) for doubles in shown), default=1) or 1
        return [
            [replace(g, image=doubles[i]) if doubles else g for g, doubles in zip(groups, shown, strict=True)]
            for i in range(views)
        ]
