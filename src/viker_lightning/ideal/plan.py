"""What a method asks of frozen models: made out once, before anything is asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from viker_lightning.data.encoding import Encoded, Encoder
from viker_lightning.data.records import ImageGroup, Picture

from .distribution import why_not_reduced
from .doubles import Doubles
from .reference import Level
from .store import Keep


class Asks(Protocol):
    """What a method says it needs of frozen models; see :class:`~viker_lightning.methods.Method`."""

    @property
    def streams(self) -> Mapping[str, Any]:
        """What it needs of each stream, by name, with ``levels`` by name of a reference."""

    @property
    def references(self) -> Mapping[str, Any]:
        """All references and their settings, by name."""

    layers: tuple[int, ...]


@dataclass(frozen=True)
class Need:
    """A reference that is asked about a stream.

    Attributes:
        stream: whose answers.
        name: of the reference.
        level: how much of what it says is used.
        why_full: why every probability is needed, in every step, so that nothing is kept; ``None`` if a reduced
            reference does.
    """

    stream: str
    name: str
    level: Level
    why_full: str | None

    @property
    def single(self) -> bool:
        """Whether what is said behind the one image of each answer is kept."""
        return self.name != "irrelevant" and self.why_full is None


@dataclass(frozen=True)
class Behind:
    """Answers that are asked behind each of some pictures before the first step.

    Attributes:
        pictures: all of them, in order.
        each: whether what is said behind every single one is kept beside their mean.
        groups: whose questions and answers, one list after the other; their own images do not count.
    """

    pictures: Sequence[Picture]
    each: bool
    groups: Sequence[Sequence[ImageGroup]]

    def questions(self, encoder: Encoder) -> list[list[Encoded]]:
        """The questions of every list."""
        return [[encoder.encode(vqa, g.image is not None) for g in some for vqa in g.vqa] for some in self.groups]


@dataclass(frozen=True)
class Plan:
    """All that frozen models are asked.

    Attributes:
        asks: the method.
        groups: gives every question of a stream with every image it may be asked about.
        needs: in the method's order.
        irrelevant: what is asked behind irrelevant images, if anything.
        strangers: what is asked behind each stranger, if that is to be known beforehand; the same as ``irrelevant`` if
            these are the same pictures.
        doubles: who stands for whom, if doubles are asked about.
    """

    asks: Asks
    groups: Callable[[str], list[ImageGroup]]
    needs: Sequence[Need]
    irrelevant: Behind | None
    strangers: Behind | None
    doubles: Doubles | None = None

    @property
    def behind(self) -> list[Behind]:
        """What is asked before the first step, each once."""
        both = [self.irrelevant] if self.irrelevant is self.strangers else [self.irrelevant, self.strangers]
        return [behind for behind in both if behind is not None]

    def knows(self, need: Need) -> bool:
        """Whether a need is met by what was asked behind each stranger."""
        return self.strangers is not None and (need.stream, need.name) == ("strangers", "own")


def plan_of(
    asks: Asks,
    head: nn.Module,
    keep: Keep,
    irrelevant: Sequence[Picture],
    strangers: Sequence[Picture],
    groups: Callable[[str], list[ImageGroup]],
    doubles: Doubles | None = None,
) -> Plan:
    """Makes out what frozen models are asked.

    Args:
        asks: the method.
        head: the model's output embedding, which may have no weights yet.
        keep: where what was said is kept.
        irrelevant: irrelevant images, if the method asks about them.
        strangers: pictures behind each of which the forget answers may be asked beforehand.
        groups: as of :class:`Plan`.
        doubles: as of :class:`Plan`.
    """
    needs = []
    for stream, need in asks.streams.items():
        for name, level in need.levels.items():
            reason = why_not_reduced(head, "reverse" if level == "full" else "forward")
            own_alone = level == "log_prob" and name != "irrelevant"  # needs no distribution at all
            needs.append(Need(stream, name, level, None if own_alone else reason))
    asked = [groups(need.stream) for need in needs if need.name == "irrelevant"]
    ideal = Behind(irrelevant, False, asked) if asked else None
    known = any(need.single and (need.stream, need.name) == ("strangers", "own") for need in needs)
    if keep == "off" or asks.layers or not (known and strangers):
        return Plan(asks, groups, needs, ideal, None, doubles)
    shown = [group for group in groups("forget") if group.image is not None]
    if asked and list(irrelevant) == list(strangers):
        both = Behind(strangers, True, [*asked, shown])
        return Plan(asks, groups, needs, both, both, doubles)
    return Plan(asks, groups, needs, ideal, Behind(strangers, True, [shown]), doubles)
