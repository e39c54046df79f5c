"""Questions behind example questions, which may have images of their own: one prompt a question, examples included.

All questions of a split and task have the same examples, so these are read once, and so is the image of a person.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.models import MLLM, Prompt, PromptPrefixes

from .protocols import Example, Protocol

log = logging.getLogger(__name__)

TURN = "USER: "
"""What opens the question proper (franciscoliu/MLLMU-Bench eval.py)."""


@dataclass(frozen=True)
class Asked:
    """A question behind examples.

    Attributes:
        group: whose it is.
        task: decides its examples.
        question: the text after its image; text-only, with its examples.
    """

    group: ImageGroup
    task: Literal["choice", "cloze"]
    question: str


def has_examples(mllm: MLLM, protocol: Protocol, group: ImageGroup, task: Literal["choice", "cloze"]) -> bool:
    """Whether examples precede a group's questions of a task."""
    if group.image is None:
        return bool(protocol.preceding(group, task))
    return bool(examples_of(mllm, protocol, group, task))


def examples_of(mllm: MLLM, protocol: Protocol, group: ImageGroup, task: Literal["choice", "cloze"]) -> list[Example]:
    """The example questions that precede a group's questions of a task; none, with a message, for unknown families."""
    found = protocol.shown(group, task)
    if found and not mllm.family.packs:
        _say_zero_shot(type(mllm.base).__name__)
        return []
    return found


def prompt(mllm: MLLM, examples: Sequence[Example], picture: Picture, question: str) -> list[int]:
    """Token ids of a question about a picture behind examples about others.

    For LLaVA-1.5 the text is the published one. Other families have it in one user turn of their own template, each
    image marked as the template marks it.

    Args:
        mllm: the model.
        examples: questions with their images and answers; without any, the prompt is that of every other question.
        picture: what the question is about.
        question: the text after its image.
    """
    family, text = mllm.family, mllm.encoder.template
    mark = text.image_prefix.removeprefix(text.text_prefix).lstrip()
    behind = text.question.partition("{question}")[0]
    parts = [(e.image, e.turn, behind + e.text) for e in examples]
    parts.append((picture, TURN, text.question.format(question=question)))
    written = ""
    for image, turn, words in parts:
        opening = turn + mark if written else text.image_prefix.replace(TURN, turn)
        placeholders = family.image_text(text.image_token, mllm.vision.shape(mllm.base, image))
        written += opening.replace(text.image_token, placeholders) + words
    return mllm.encoder.sequence(written)


def fitting(
    mllm: MLLM, examples: Sequence[Example], picture: Picture, question: str, max_new_tokens: int
) -> tuple[list[int], list[Picture]]:
    """The prompt with as many examples as the model's context holds beside the answer, the first ones dropped first.

    Returns:
        Its token ids, and its pictures in their order.
    """
    room = getattr(mllm.base.config.get_text_config(), "max_position_embeddings", None)
    for left in range(len(examples), -1, -1):
        kept = examples[len(examples) - left :]
        ids = prompt(mllm, kept, picture, question)
        if room is None or len(ids) + max_new_tokens <= room:
            break
    if left < len(examples):
        _say_fewer(left, len(examples), room)
    return ids, [*(e.image for e in kept), picture]


def answer_behind(
    prefixes: PromptPrefixes, protocol: Protocol, asked: Sequence[Asked], max_new_tokens: int
) -> list[str]:
    """Answers questions greedily, each behind as many of its examples as fit.

    Args:
        prefixes: the model, in evaluation mode, and what it has read already.
        protocol: has the examples.
        asked: those of one group next to each other.
        max_new_tokens: where an answer ends at the latest.

    Returns:
        Answers in the order of the questions.
    """
    mllm = prefixes.mllm
    alike: dict[Hashable, dict[int, Prompt]] = defaultdict(dict)
    for i, one in enumerate(asked):
        image = one.group.image
        if image is None:
            asking = protocol.encoder(mllm.encoder, one.task, False)
            prompt = Prompt([*mllm.prefix(None), *asking.question(one.question, False).prompt])
        else:
            examples = examples_of(mllm, protocol, one.group, one.task)
            prompt = Prompt(*fitting(mllm, examples, image, one.question, max_new_tokens))
        people = tuple(example.person for example in protocol.preceding(one.group, one.task))
        alike[one.task, people, image is None, len(prompt.pictures)][i] = prompt
    texts: dict[int, str] = {}
    for name, prompts in alike.items():
        found = prefixes.answers(name, list(prompts.values()), max_new_tokens)
        texts |= dict(zip(prompts, found, strict=True))
    return [texts[i] for i in range(len(asked))]


@cache  # said once
def _say_fewer(left: int, count: int, room: int) -> None:
    log.warning(
        "a question about an image keeps %d of its %d example questions: more do not fit the model's context of %d",
        *(left, count, room),
    )


@cache
def _say_zero_shot(name: str) -> None:
    log.warning(
        "%s: questions about an image are asked without examples (it is of no known family, so how it takes "
        "several images is not known)",
        name,
    )
