"""From image groups to predictions: what a model answers, and how likely the true answer is to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.prompts import choice_prompt, cloze_prompt
from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.ideal import token_kl
from viker_lightning.models import MLLM, AnswerTokens, answer

MAX_NEW_TOKENS = 50
"""As in MLLMU-Bench (franciscoliu/MLLMU-Bench eval.py)."""


TASKS = ("generation", "cloze", "choice")


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
        paraphrase: mean log-probability of the paraphrased answer, where there is one (generation).
        perturbed: mean log-probability of each wrong answer of the same form, where there are any (generation).
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
    paraphrase: float | None = None
    perturbed: list[float] = field(default_factory=list)


def in_order(prediction: Prediction) -> tuple[int, str, int, int]:
    """Sort key: by split, person, task and number, whatever order or process the questions were answered in."""
    split = list(Split).index(Split(prediction.split))
    return split, prediction.person, TASKS.index(prediction.task), prediction.number


@dataclass
class _Asked:
    """One evaluation question: the answers to be scored behind its prompt, and how it becomes a prediction."""

    group: int
    number: int
    task: Literal["generation", "cloze", "choice"]
    source: VQA | Cloze | MultipleChoice
    encoded: list[Encoded]


def predict(mllm: MLLM, groups: Sequence[ImageGroup], gold: MLLM | None = None) -> list[Prediction]:
    """Answers every question of evaluation groups.

    Everything asked about an image is read behind it in one pass: prompts, true answers, paraphrased and wrong
    answers, options. Open questions and clozes then decode behind the same key/values. Sequences of like length pass
    the model together.

    Args:
        mllm: the model.
        groups: groups with a split.
        gold: the model retrained without the forget set, to be compared with.

    Returns:
        Predictions in the order of the groups: of each its open questions, its clozes, its multiple-choice questions.
    """
    training = mllm.training
    mllm.eval()
    rows = [row for i, group in enumerate(groups) for row in _rows(mllm, i, group)]
    sizes = [_tokens(mllm, groups, row) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: sizes[i])
    found: list[tuple[_Asked, Prediction]] = []
    with torch.no_grad():
        for part in in_budget([sizes[i] for i in order], mllm.max_tokens, padded=True):
            found += _predict(mllm, groups, [rows[order[i]] for i in part], gold)
    mllm.train(training)
    found.sort(key=lambda f: (f[0].group, TASKS.index(f[0].task), f[0].number))
    return [prediction for _, prediction in found]


def _rows(mllm: MLLM, index: int, group: ImageGroup) -> list[list[_Asked]]:
    """The questions of a group, as many in a packed sequence as the budget allows."""
    image, encoder = group.image is not None, mllm.encoder
    asked: list[_Asked] = []
    for number, vqa in enumerate(group.vqa):
        others = [VQA(vqa.question, text) for text in (vqa.paraphrase, *vqa.perturbed) if text]
        encoded = [encoder.encode(replace(vqa, paraphrase="", perturbed=()), image)]
        encoded += [encoder.encode(other, image) for other in others]
        asked.append(_Asked(index, number, "generation", vqa, encoded))
    for number, cloze in enumerate(group.clozes):
        asked.append(_Asked(index, number, "cloze", cloze, [encoder.question(cloze_prompt(cloze.question), image)]))
    for number, choice in enumerate(group.choices):
        prompt = choice_prompt(choice.question, choice.options)
        encoded = [encoder.encode(VQA(prompt, option), image) for option in choice.options]
        asked.append(_Asked(index, number, "choice", choice, encoded))
    prefix = len(mllm.prefix(group.image))
    sizes = [row_tokens(0, one.encoded) for one in asked]
    return [[asked[i] for i in part] for part in in_budget(sizes, mllm.max_sequence_tokens - prefix)]


def _tokens(mllm: MLLM, groups: Sequence[ImageGroup], row: list[_Asked]) -> int:
    """Room a sequence takes, generated tokens included."""
    asked = [q for one in row for q in one.encoded]
    decoded = sum(one.task != "choice" for one in row)
    return row_tokens(len(mllm.prefix(groups[row[0].group].image)), asked) + decoded * MAX_NEW_TOKENS


def _predict(
    mllm: MLLM, groups: Sequence[ImageGroup], rows: list[list[_Asked]], gold: MLLM | None
) -> Iterator[tuple[_Asked, Prediction]]:
    pictures = [groups[row[0].group].image for row in rows]
    batch = mllm.assemble(pictures, [[q for one in row for q in one.encoded] for row in rows])
    everything = [one for row in rows for one in row]
    firsts = [0, *itertools.accumulate(len(one.encoded) for one in everything)]
    decoded = [first for first, one in zip(firsts, everything, strict=False) if one.task != "choice"]
    tokens, texts = answer(mllm, batch, decoded, MAX_NEW_TOKENS)
    sizes = [len(q.answer) for q in batch.encoded]
    log_probs = tokens.log_probs.cpu().split(sizes)
    correct = (tokens.logits.argmax(-1) == tokens.labels).cpu().split(sizes)
    text = dict(zip(decoded, texts, strict=True))
    kl = _kl_gold(tokens, gold.answer_tokens(batch)) if gold else None
    for first, one in zip(firsts, everything, strict=False):
        group = groups[one.group]
        about = (str(group.split), group.person, one.task, one.number, one.source.question)
        if isinstance(one.source, VQA):
            given = [p.mean().item() for p in log_probs[first + 1 : first + len(one.encoded)]]
            paraphrased = bool(one.source.paraphrase)
            yield (
                one,
                Prediction(
                    *about,
                    one.source.answer,
                    text[first],
                    one.source.private,
                    log_probs[first].tolist(),
                    correct[first].tolist(),
                    list(one.encoded[0].private),
                    None if kl is None else kl[first],
                    given[0] if paraphrased else None,
                    given[paraphrased:],
                ),
            )
        elif isinstance(one.source, Cloze):
            yield one, Prediction(*about, one.source.answer, text[first])
        else:
            scores = [p.mean().item() for p in log_probs[first : first + len(one.encoded)]]
            best = one.source.options[scores.index(max(scores))]
            yield one, Prediction(*about, one.source.options[one.source.correct], best, (), scores)


def _kl_gold(tokens: AnswerTokens, gold: AnswerTokens) -> list[float]:
    """KL(gold || model) of each question, mean over its tokens."""
    return tokens.mean_by_question(token_kl(gold.logits.softmax(-1), tokens.logits)).tolist()
