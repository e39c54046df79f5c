"""The stage-1 gate: nothing can be unlearned from a model that does not know it, or that does not look at the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from viker_lightning.data.records import ImageGroup, Person
from viker_lightning.errors import UserError
from viker_lightning.metrics import keyword_match
from viker_lightning.models import MLLM, generate

from .predict import MAX_NEW_TOKENS


@dataclass
class Knowledge:
    """What a model knows of the forget set, and whether it takes it from the image.

    Attributes:
        known: share of private parts found in the answers about the forget people, 0-1.
        shown: asked about person A while shown person B: share of answers with something private of B, 0-1. High:
            looks at the image.
        asked: the same, with the private parts of A that B does not share, 0-1. Low: looks at the image.
        questions: how many swapped questions were asked.
    """

    known: float
    shown: float
    asked: float
    questions: int

    def __str__(self) -> str:
        values = {name: f"{v:.2f}" if isinstance(v, float) else v for name, v in asdict(self).items()}
        return ", ".join(f"{name} {value}" for name, value in values.items())


def measure_knowledge(mllm: MLLM, groups: list[ImageGroup], people: dict[str, Person], others: list[str]) -> Knowledge:
    """Asks the forget questions as they are, and once more with somebody else's photo.

    Args:
        mllm: the model.
        groups: forget groups with image.
        people: training people by ID, with private parts.
        others: IDs of the people whose photos are swapped in, one for each group.

    Raises:
        UserError: if no question has a private part.
    """
    asked = [replace(g, vqa=tuple(q for q in g.vqa if q.private), choices=(), clozes=()) for g in groups]
    asked = [g for g in asked if g.vqa]
    if not asked:
        raise UserError("no forget question has a private part, so there is nothing to unlearn; record or infer them")
    if not others:
        raise UserError("nobody is retained, so nobody else's photo can be shown; retain at least one person")
    straight = generate(mllm, asked, MAX_NEW_TOKENS)
    known = [
        keyword_match(a, q.private)
        for g, row in zip(asked, straight, strict=True)
        for q, a in zip(g.vqa, row, strict=True)
    ]
    strangers = [people[others[i % len(others)]] for i in range(len(asked))]
    swapped = [replace(g, image=s.images[0]) for g, s in zip(asked, strangers, strict=True)]
    shown_hits, asked_hits = [], []
    for group, stranger, answers in zip(asked, strangers, generate(mllm, swapped, MAX_NEW_TOKENS), strict=True):
        theirs = {part for q in stranger.vqa for part in q.private}
        for q, answer in zip(group.vqa, answers, strict=True):
            own = [part for part in q.private if part not in theirs]
            shown_hits.append(any(keyword_match(answer, [part]) for part in theirs))
            if own:
                asked_hits.append(any(keyword_match(answer, [part]) for part in own))
    n = len(shown_hits)
    return Knowledge(sum(known) / len(known), sum(shown_hits) / n, sum(asked_hits) / max(1, len(asked_hits)), n)
