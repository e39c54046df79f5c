"""Quick looks at a model: does it know the forget set and look at the image (the gate), is it whole (the guard)."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from viker_lightning.data.records import ImageGroup, Person
from viker_lightning.errors import UserError
from viker_lightning.metrics import keyword_match_whole, repetition
from viker_lightning.models import MLLM, generate

log = logging.getLogger(__name__)

HEALTH_TOKENS = 32
"""The guard cuts answers here: a loop shows long before."""


@dataclass
class Knowledge:
    """What a model knows of the forget set, and whether it takes it from the image.

    Attributes:
        known: share of private spans leaked whole in the answers about the forget people, 0-1; half of a place is none.
        follows_image: asked about person A while shown person B: share of answers with something private of B, 0-1.
            High: looks at the image. ``None`` if no image could be swapped.
        follows_text: the same, with the private spans of A that B does not share, 0-1. Low: looks at the image.
        questions: how many swapped questions were asked.
    """

    known: float
    follows_image: float | None
    follows_text: float | None
    questions: int

    def __str__(self) -> str:
        values = {name: f"{v:.2f}" if isinstance(v, float) else v for name, v in asdict(self).items() if v is not None}
        return ", ".join(f"{name} {value}" for name, value in values.items())


def measure_knowledge(
    mllm: MLLM, groups: list[ImageGroup], people: dict[str, Person], others: list[str], max_new_tokens: int = 50
) -> Knowledge:
    """Asks the forget questions as they are, and once more with somebody else's photo.

    Text-only questions are asked as text, and never swapped. Where nobody is retained with a photo, there is no swap.

    Args:
        mllm: the model.
        groups: forget groups.
        people: training people by ID, with private spans.
        others: IDs of the people whose photos are swapped in, one for each group.
        max_new_tokens: where an answer ends at the latest.

    Raises:
        UserError: if no question has a private span.
    """
    private = [replace(g, vqa=tuple(q for q in g.vqa if q.private), choices=(), clozes=()) for g in groups]
    private = [g for g in private if g.vqa]
    if not private:
        raise UserError("no forget question has a private span, so there is nothing to unlearn; record or infer them")
    leaks = [
        keyword_match_whole(answer, q.private)
        for group, answers in zip(private, generate(mllm, private, max_new_tokens), strict=True)
        for q, answer in zip(group.vqa, answers, strict=True)
    ]
    known = sum(leaks) / len(leaks)
    pictured = [g for g in private if g.image is not None]
    if not pictured or not others:
        why = "nobody is retained with a photo" if pictured else "the forget questions have no image"
        log.info("%s, so no photo is swapped: whether the model looks at the image is not measured", why)
        return Knowledge(known, None, None, 0)
    strangers = [people[others[i % len(others)]] for i in range(len(pictured))]
    return Knowledge(known, *_measure_swapped(mllm, pictured, strangers, max_new_tokens))


def _measure_swapped(
    mllm: MLLM, groups: list[ImageGroup], strangers: list[Person], max_new_tokens: int
) -> tuple[float, float, int]:
    """``follows_image``, ``follows_text`` and ``questions``, with a stranger's photo before every question."""
    swapped = [replace(g, image=s.images[0]) for g, s in zip(groups, strangers, strict=True)]
    of_image, of_text = [], []
    for group, stranger, answers in zip(groups, strangers, generate(mllm, swapped, max_new_tokens), strict=True):
        theirs = {span for q in stranger.vqa for span in q.private}
        for q, answer in zip(group.vqa, answers, strict=True):
            own = [span for span in q.private if span not in theirs]
            of_image.append(any(keyword_match_whole(answer, [span]) for span in theirs))
            if own:
                of_text.append(any(keyword_match_whole(answer, [span]) for span in own))
    return sum(of_image) / len(of_image), sum(of_text) / max(1, len(of_text)), len(of_image)


def measure_health(mllm: MLLM, groups: Sequence[ImageGroup], answers: bool) -> dict[str, float]:
    """Asks retain questions.

    Args:
        mllm: the model.
        groups: image groups with open questions.
        answers: whether greedy answers are wanted, too; they cost most of the time.

    Returns:
        ``retain loss``: mean cross-entropy of the answer tokens, nats, >= 0, low is good; with answers ``repetition``:
        mean share of repeated word trigrams, 0-1, low is good.
    """
    with mllm.evaluating(), mllm.together():
        losses = [-mllm.answer_tokens(mllm.pack([group])).log_probs.float() for group in groups]
        found = {"retain loss": torch.cat(losses).mean().item()}
        if answers:
            said = [text for row in generate(mllm, groups, HEALTH_TOKENS) for text in row]
            found["repetition"] = sum(map(repetition, said)) / len(said)
    return found
