"""From image groups to predictions: what a model answers, and how likely the true answer is to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.prompts import choice_prompt, cloze_prompt
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.ideal import token_kl
from viker_lightning.models import MLLM

MAX_NEW_TOKENS = 50
"""As in MLLMU-Bench (franciscoliu/MLLMU-Bench eval.py)."""

QUESTIONS_PER_PASS = 64


@dataclass
class Prediction:
    """One question, answered. All generation metrics can be computed from this, without a model.

    Attributes:
        split: evaluation split.
        person: ID of the person or scene.
        task: ``generation``, ``cloze`` or ``choice``.
        number: position among the group's questions of this task.
        question: the text asked.
        reference: the true answer.
        answer: the model's: greedy text, or the option of highest mean log-likelihood.
        private: private parts of the reference.
        log_probs: log-probability of each token of the reference (generation), or of each option, averaged (choice).
        correct: for each token of the reference, whether it is the model's first choice (generation).
        private_tokens: for each token of the reference, whether it is private (generation).
        kl_gold: mean over answer tokens of KL(gold || model), nats; ``None`` without gold model.
    """

    split: str
    person: str
    task: Literal["generation", "cloze", "choice"]
    number: int
    question: str
    reference: str
    answer: str
    private: tuple[str, ...] = ()
    log_probs: list[float] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    private_tokens: list[bool] = field(default_factory=list)
    kl_gold: float | None = None


def predict(mllm: MLLM, groups: Sequence[ImageGroup], gold: MLLM | None = None) -> list[Prediction]:
    """Answers every question of evaluation groups.

    Args:
        mllm: the model.
        groups: groups with a split.
        gold: the model retrained without the forget set, to be compared with.

    Returns:
        Predictions of all open questions, then of all clozes, then of all multiple-choice questions.
    """
    was_training = mllm.training
    mllm.eval()
    with torch.no_grad():
        found = [*_open_questions(mllm, groups, gold), *_clozes(mllm, groups), *_choices(mllm, groups)]
    mllm.train(was_training)
    return found


def _open_questions(mllm: MLLM, groups: Sequence[ImageGroup], gold: MLLM | None) -> Iterator[Prediction]:
    asked = [group for group in groups if group.vqa]
    answers = mllm.generate(asked, MAX_NEW_TOKENS) if asked else []
    tokens = _tokens(mllm, asked)
    kl = _kl_gold(mllm, gold, asked) if gold else itertools.repeat(None)
    for group, texts in zip(asked, answers, strict=True):
        for number, (vqa, text) in enumerate(zip(group.vqa, texts, strict=True)):
            log_probs, correct, private = next(tokens)
            yield Prediction(
                str(group.split),
                group.person,
                "generation",
                number,
                vqa.question,
                vqa.answer,
                text,
                vqa.private,
                log_probs.tolist(),
                correct.tolist(),
                private.tolist(),
                next(kl),
            )


def _clozes(mllm: MLLM, groups: Sequence[ImageGroup]) -> Iterator[Prediction]:
    asked = [
        _asking(group, [VQA(cloze_prompt(c.question), "") for c in group.clozes]) for group in groups if group.clozes
    ]
    answers = mllm.generate(asked, MAX_NEW_TOKENS) if asked else []
    for group, texts in zip((g for g in groups if g.clozes), answers, strict=True):
        for number, (cloze, text) in enumerate(zip(group.clozes, texts, strict=True)):
            yield Prediction(str(group.split), group.person, "cloze", number, cloze.question, cloze.answer, text)


def _choices(mllm: MLLM, groups: Sequence[ImageGroup]) -> Iterator[Prediction]:
    asked = [
        _asking(
            group, [VQA(choice_prompt(c.question, c.options), option) for c in group.choices for option in c.options]
        )
        for group in groups
        if group.choices
    ]
    tokens = _tokens(mllm, asked)
    for group in groups:
        for number, choice in enumerate(group.choices):
            scores = [next(tokens)[0].mean().item() for _ in choice.options]
            best = choice.options[scores.index(max(scores))]
            right = choice.options[choice.correct]
            yield Prediction(str(group.split), group.person, "choice", number, choice.question, right, best, (), scores)


def _asking(group: ImageGroup, vqa: list[VQA]) -> ImageGroup:
    return replace(group, vqa=tuple(vqa), choices=(), clozes=())


def _tokens(mllm: MLLM, groups: Sequence[ImageGroup]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Per question: log-probability of each reference token, whether it is the first choice, whether it is private."""
    for batch in _passes(mllm, groups):
        tokens = mllm.answer_tokens(batch)
        sizes = [len(q.answer) for q in batch.encoded]
        correct = tokens.logits.argmax(-1) == tokens.labels
        columns = (tokens.log_probs.cpu(), correct.cpu(), tokens.private.cpu())
        yield from zip(*(column.split(sizes) for column in columns), strict=True)


def _kl_gold(mllm: MLLM, gold: MLLM, groups: Sequence[ImageGroup]) -> Iterator[float]:
    for batch in _passes(mllm, groups):
        tokens, wanted = mllm.answer_tokens(batch), gold.answer_tokens(batch)
        kl = token_kl(wanted.logits.softmax(-1), tokens.logits)
        yield from tokens.mean_by_question(kl).tolist()


def _passes(mllm: MLLM, groups: Sequence[ImageGroup]) -> Iterator[PackedBatch]:
    """Packs groups in order, a few at a time."""
    part: list[ImageGroup] = []
    for group in groups:
        if part and sum(len(g.vqa) for g in [*part, group]) > QUESTIONS_PER_PASS:
            yield mllm.pack(part)
            part = []
        part.append(group)
    if part:
        yield mllm.pack(part)
