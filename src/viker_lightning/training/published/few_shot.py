"""Prompts with examples before the question, and several images in one prompt."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from viker_lightning.data.records import Picture
from viker_lightning.models import MLLM, Prompt

log = logging.getLogger(__name__)

TURN = "USER: "
"""What opens the question proper (franciscoliu/MLLMU-Bench eval.py)."""


@dataclass(frozen=True)
class Example:
    """A question about an image, with its answer, that precedes another one.

    Attributes:
        image: what it is about.
        turn: what opens it, before the image.
        text: what follows the image.
    """

    image: Picture
    turn: str
    text: str


def takes_examples(mllm: MLLM) -> bool:
    """Whether it is known how a model takes several images; says so, once, if it is not."""
    if not mllm.family.packs:
        _warn_zero_shot(type(mllm.base).__name__)
        return False
    return True


def write_prompt(mllm: MLLM, examples: Sequence[Example], picture: Picture, question: str) -> list[int]:
    """Token ids of a question about a picture behind examples about others; without any it is as everywhere.

    For LLaVA-1.5 the text is the published one. Other families have it in one user turn of their own template, each
    image marked as the template marks it.
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


def fit_prompt(mllm: MLLM, examples: Sequence[Example], picture: Picture, question: str, max_new_tokens: int) -> Prompt:
    """A prompt with as many examples as the model's context holds beside the answer, the first ones dropped first."""
    room = getattr(mllm.base.config.get_text_config(), "max_position_embeddings", None)
    for left in range(len(examples), -1, -1):
        shown = examples[len(examples) - left :]
        ids = write_prompt(mllm, shown, picture, question)
        if room is None or len(ids) + max_new_tokens <= room:
            break
    if left < len(examples):
        _warn_fewer(left, len(examples), room)
    return Prompt(ids, [*(e.image for e in shown), picture])


@cache  # said once
def _warn_fewer(left: int, count: int, room: int) -> None:
    log.warning(
        "a question about an image keeps %d of its %d example questions: more do not fit the model's context of %d",
        *(left, count, room),
    )


@cache
def _warn_zero_shot(name: str) -> None:
    log.warning(
        "%s: questions about an image are asked without examples (it is of no known family, so how it takes "
        "several images is not known)",
        name,
    )
