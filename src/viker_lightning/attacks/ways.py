"""The same questions put in other ways, and what leaks in any of several ways."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.evaluation import predict
from viker_lightning.models import MLLM

from .attempt import Attempt, attempts, hit

Key = tuple[int, int]
"""A question that is put in several ways: the number of its group, and its own in that group."""

Put = Callable[[ImageGroup, VQA], tuple[Picture | None, VQA] | None]
"""How a question is put: behind which picture and in which words; ``None`` if it cannot be put that way."""


def ask_in_a_way(
    mllm: MLLM, asked: Sequence[ImageGroup], series: str, put: Put, max_new_tokens: int = 50
) -> dict[Key, Attempt]:
    """Puts open questions in a way of its own and answers them greedily: an attempt a question that can be put so."""
    groups: list[ImageGroup] = []
    keys: list[Key] = []
    for i, group in enumerate(asked):
        behind: dict[str, tuple[Picture | None, list[tuple[Key, VQA]]]] = {}
        for j, vqa in enumerate(group.vqa):
            if found := put(group, vqa):
                picture, words = found
                same = behind.setdefault(picture.key if picture else "", (picture, []))
                same[1].append(((i, j), words))
        for picture, questions in behind.values():
            groups.append(replace(group, image=picture, vqa=tuple(q for _, q in questions), choices=(), clozes=()))
            keys += [key for key, _ in questions]
    found_ = attempts(predict(mllm, groups, max_new_tokens=max_new_tokens), series)
    return dict(zip(keys, found_, strict=True))


def ask_in_ways(
    mllm: MLLM, asked: Sequence[ImageGroup], ways: Iterable[tuple[str, Put]], together: str, max_new_tokens: int = 50
) -> list[Attempt]:
    """Attempts of all ways, each with its series, and :func:`any_of` them as the series ``together``."""
    tried = [ask_in_a_way(mllm, asked, series, put, max_new_tokens) for series, put in ways]
    return [*(attempt for way in tried for attempt in way.values()), *any_of(asked, together, tried)]


def any_of(asked: Sequence[ImageGroup], series: str, ways: Sequence[Mapping[Key, Attempt]]) -> list[Attempt]:
    """What somebody gets who tries several ways: for every question the best that came out of any of them.

    The words are those of the data; answer and hit are the best attempt's, the probability is the highest.
    """
    best = []
    for i, group in enumerate(asked):
        for j, vqa in enumerate(group.vqa):
            tried = [way[i, j] for way in ways if (i, j) in way]
            if tried:
                found = max(tried, key=lambda one: one.hit)
                read = [one.probability for one in tried if one.probability is not None]
                likeliest = max(read) if read else None
                best.append(replace(found, series=series, question=vqa.question, probability=likeliest))
    return best


def untold(vqa: VQA, told: str) -> VQA | None:
    """A question without the private spans that a text has told already; ``None`` if there is nothing left to say."""
    left = tuple(span for span in vqa.private if not hit(told, [span]))
    return replace(vqa, private=left) if left else None
