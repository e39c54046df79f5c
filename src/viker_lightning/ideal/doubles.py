"""Doubles: the strangers that one person is to become, the same for all photos, names, wordings and steps."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from torch import Tensor

from viker_lightning.data.person_names import renamed
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
        names: a file with names of strangers, one a line, for questions without photo; ``None`` is invented ones.
    """

    pictures: str = "people"
    count: int = 40
    each: int = 1
    level: Level = "kl"
    names: str | None = None

    def __post_init__(self) -> None:
        check_least("Double", 1, count=self.count, each=self.each)
        if self.each > self.count:
            raise UserError(f"Double.each: found {self.each} of {self.count} strangers; raise count, or lower each")
        if self.pictures == "forget":
            raise UserError("Double.pictures: found 'forget', who are no strangers; use people or a folder")


class Doubles:
    """Which strangers stand for whom: drawn by a hash of the person's name, so that all processes draw the same.

    Two people have no double in common as long as there are enough strangers, and no name as long as there are enough.

    Args:
        people: IDs of those who need doubles; several IDs of one person (``name #1``, or one that is called the same)
            have the same doubles.
        pictures: of the strangers.
        each: how many a person has.
        seed: of the draw.
        called: what people are called, where questions without photo are asked about them.
        names: of strangers, for these people; nobody of the data has one of them.

    Attributes:
        names: of the double that a person is named after, by what the person is called.
    """

    def __init__(
        self,
        people: Iterable[str],
        pictures: Sequence[Picture],
        each: int,
        seed: int,
        called: Mapping[str, str] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self._called = called or {}
        everybody = sorted({self._who(person) for person in people})
        drawn = _drawn(everybody, len(pictures), each, f"{seed}/double")
        self._of = {name: [pictures[number] for number in numbers] for name, numbers in drawn.items()}
        named = [name for name in everybody if name in self._called.values()] if names else []
        self.names = {name: names[number] for name, (number,) in _drawn(named, len(names), 1, f"{seed}/name").items()}

    def __getitem__(self, person: str) -> list[Picture]:
        """The doubles of a person, by any of their IDs."""
        return self._of[self._who(person)]

    def _who(self, person: str) -> str:
        """What a person is called, or the ID where that is not known."""
        return self._called.get(person_name(person), person_name(person))

    def views(self, groups: Sequence[ImageGroup]) -> list[list[ImageGroup]]:
        """Image groups as they are asked about the first double of each person, about the second, and so on.

        A question without photo says who is meant by name. It is asked with the name of the first double in all views.
        """
        shown = [self[group.person] if group.image is not None else [] for group in groups]
        views = max((len(doubles) for doubles in shown), default=1) or 1
        return [
            [
                replace(g, image=doubles[i]) if doubles else self._named(g)
                for g, doubles in zip(groups, shown, strict=True)
            ]
            for i in range(views)
        ]

    def _named(self, group: ImageGroup) -> ImageGroup:
        name = self._who(group.person)
        if name not in self.names:
            return group
        return replace(group, vqa=tuple(renamed(vqa, name, self.names[name]) for vqa in group.vqa))


def in_common(asked: Sequence[int], instead: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where the same tokens stand in two answers that differ in a name, in their order.

    Args:
        asked: tokens of one answer.
        instead: those of the other.
    """
    blocks = SequenceMatcher(None, asked, instead, autojunk=False).get_matching_blocks()
    pairs = [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def with_rows(own: Tensor, found: Tensor, places: tuple[list[int], list[int]]) -> Tensor:
    """What is said of an answer (``own``, a row a token) with rows of another (``found``) where both have a token."""
    rows = own.clone()
    rows[places[0]] = found[places[1]]
    return rows


def _drawn(people: Sequence[str], count: int, each: int, seed: str) -> dict[str, list[int]]:
    """Numbers below ``count`` for everybody, those that nobody has yet before others."""
    found: dict[str, list[int]] = {}
    free = set(range(count))
    for name in people:
        order = random.Random(f"{seed}/{name}").sample(range(count), count)
        order.sort(key=lambda number: number not in free)  # stable
        free -= {*order[:each]}
        found[name] = order[:each]
    return found
