"""From image groups to predictions: what a model answers, and how likely the true answer is to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import VQA, Cloze, ImageGroup, MultipleChoice, Split
from viker_lightning.errors import UserError
from viker_lightning.ideal import token_kl
from viker_lightning.metrics import likeliest_option, log_prob_moments
from viker_lightning.metrics.prediction import Prediction
from viker_lightning.models import MLLM, AnswerTokens, PromptPrefixes, answer, generate

from .fewshot import Asked, answer_behind, has_examples
from .protocols import CORRECTED, Protocol

MAX_NEW_TOKENS = 50
"""As in MLLMU-Bench (franciscoliu/MLLMU-Bench eval.py)."""


MOMENT_TOKENS = 256
"""Tokens whose full distributions are looked at together."""

TASKS = ("generation", "cloze", "choice")
MODALITIES = ("image", "text")


def in_order(prediction: Prediction) -> tuple[int, int, str, int, int, str]:
    """Sort key: by split, modality, person, task, number, photo, whatever process answered the question, and when."""
    split, modality = list(Split).index(Split(prediction.split)), MODALITIES.index(prediction.modality)
    task = TASKS.index(prediction.task)
    return split, modality, prediction.person, task, prediction.number, prediction.image


@dataclass
class _Asked:
    """One evaluation question: the answers to be scored behind its prompt, and which of them is generated, too."""

    group: int
    number: int
    task: Literal["generation", "cloze", "choice"]
    source: VQA | Cloze | MultipleChoice
    encoded: list[Encoded]
    decoded: int | None


def predict(
    mllm: MLLM,
    groups: Sequence[ImageGroup],
    gold: MLLM | None = None,
    protocol: Protocol = CORRECTED,
    prefixes: PromptPrefixes | None = None,
) -> list[Prediction]:
    """Answers every question of evaluation groups.

    Everything asked about an image is read behind it in one pass: prompts, true answers, paraphrased and wrong
    answers, options. Open questions and clozes then decode behind the same key/values. Sequences of like length pass
    the model together. Examples that precede questions are read once for all of them.

    Args:
        mllm: the model.
        groups: groups with a split.
        gold: the model retrained without the forget set, to be compared with.
        protocol: how questions are put and answers read.
        prefixes: examples that the model has read already, where more groups are to come; its weights have not changed
            since.

    Returns:
        Predictions in the order of the groups: of each its open questions, its clozes, its multiple-choice questions.

    Raises:
        UserError: if the model gives probabilities that are not numbers.
    """
    training = mllm.training
    mllm.eval()
    found: list[tuple[_Asked, Prediction]] = []
    with torch.no_grad():
        rows = [row for i, group in enumerate(groups) for row in _rows(mllm, i, group, protocol)]
        sizes = [_tokens(mllm, groups, row) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: sizes[i])
        for part in in_budget([sizes[i] for i in order], mllm.max_tokens, padded=True):
            found += _predict(mllm, groups, [rows[order[i]] for i in part], gold, protocol)
        found += _predict_few_shot(prefixes or PromptPrefixes(mllm), groups, protocol)
        found.sort(key=lambda f: (f[0].group, TASKS.index(f[0].task), f[0].number))
        predictions = [prediction for _, prediction in found]
        if protocol.blind:
            _answer_blindly(mllm, groups, predictions, protocol)
    mllm.train(training)
    return predictions


def _rows(mllm: MLLM, index: int, group: ImageGroup, protocol: Protocol) -> list[list[_Asked]]:
    """The questions of a group, as many in a packed sequence as the budget allows."""
    image, encoder = group.image is not None, mllm.encoder
    asked: list[_Asked] = []
    asking = protocol.encoder(encoder, "generation", image)
    for number, vqa in enumerate(group.vqa):
        opened = protocol.open(vqa, group)
        encoded = [encoder.encode(q, image) for q in opened]
        if asking is not encoder:  # likelihoods are of the text as it is trained
            encoded.append(asking.question(opened[0].question, image))
        decoded = None if protocol.blind else len(opened) if asking is not encoder else 0
        asked.append(_Asked(index, number, "generation", vqa, encoded, decoded))
    asking = protocol.encoder(encoder, "cloze", image)
    for number, cloze in enumerate(() if _apart(mllm, group, "cloze", protocol) else group.clozes):
        encoded = [asking.question(protocol.cloze(cloze, group), image)]
        asked.append(_Asked(index, number, "cloze", cloze, encoded, 0))
    asking = protocol.encoder(encoder, "choice", image)
    for number, choice in enumerate(() if _apart(mllm, group, "choice", protocol) else group.choices):
        prompt = protocol.choice(choice, group)
        said = ("",) if protocol.letters else choice.options
        encoded = [asking.encode(VQA(prompt, option), image) for option in said]
        asked.append(_Asked(index, number, "choice", choice, encoded, 0 if protocol.letters else None))
    prefix = len(mllm.prefix(group.image))
    sizes = [row_tokens(0, one.encoded) for one in asked]
    return [[asked[i] for i in part] for part in in_budget(sizes, mllm.max_sequence_tokens - prefix)]


def _apart(mllm: MLLM, group: ImageGroup, task: Literal["choice", "cloze"], protocol: Protocol) -> bool:
    """Whether a group's questions of a task are left out of the pass over its image: not scored, or few-shot."""
    return protocol.skips(group, task) or has_examples(mllm, protocol, group, task)


def _tokens(mllm: MLLM, groups: Sequence[ImageGroup], row: list[_Asked]) -> int:
    """Room a sequence takes, generated tokens included."""
    asked = [q for one in row for q in one.encoded]
    decoded = sum(one.decoded is not None for one in row)
    return row_tokens(len(mllm.prefix(groups[row[0].group].image)), asked) + decoded * MAX_NEW_TOKENS


def _predict(
    mllm: MLLM, groups: Sequence[ImageGroup], rows: list[list[_Asked]], gold: MLLM | None, protocol: Protocol
) -> Iterator[tuple[_Asked, Prediction]]:
    pictures = [groups[row[0].group].image for row in rows]
    batch = mllm.assemble(pictures, [[q for one in row for q in one.encoded] for row in rows])
    everything = [one for row in rows for one in row]
    firsts = [0, *itertools.accumulate(len(one.encoded) for one in everything)]
    at = [first + (one.decoded or 0) for first, one in zip(firsts, everything, strict=False)]
    decoded = [place for place, one in zip(at, everything, strict=True) if one.decoded is not None]
    tokens, texts = answer(mllm, batch, decoded, MAX_NEW_TOKENS)
    sizes = [len(q.answer) for q in batch.encoded]
    if tokens.log_probs.isnan().any():
        raise UserError(
            "the model's probabilities are not numbers (NaN); load it with model.dtype float32 or bfloat16, "
            "or evaluate other weights"
        )
    log_probs = tokens.log_probs.cpu().split(sizes)
    correct = (tokens.logits.argmax(-1) == tokens.labels).cpu().split(sizes)
    text = dict(zip(decoded, map(protocol.read, texts), strict=True))
    opened = [first for first, one in zip(firsts, everything, strict=False) if isinstance(one.source, VQA)]
    moments = _moments(tokens, opened)
    kl = _kl_gold(tokens, gold.answer_tokens(batch)) if gold else None
    for first, place, one in zip(firsts, at, everything, strict=False):
        group = groups[one.group]
        if isinstance(one.source, VQA):
            others = set(range(first + 1, first + len(one.encoded))) - {place}
            given = [log_probs[i].mean().item() for i in sorted(others)]
            paraphrased = bool(one.source.paraphrase)
            prediction = Prediction(
                *_about(one, group),
                one.source.answer,
                text.get(place, ""),
                one.source.private,
                log_probs[first].tolist(),
                correct[first].tolist(),
                list(one.encoded[0].private),
                None if kl is None else kl[first],
                given[0] if paraphrased else None,
                given[paraphrased:],
            )
            prediction.log_prob_mean, prediction.log_prob_variance = moments[first]
            prediction.ended = one.encoded[0].answer[-1] == mllm.encoder.eos
        elif one.decoded is not None:
            prediction = _read(one, group, text[place], protocol)
        else:
            assert isinstance(one.source, MultipleChoice)
            options = one.source.options
            of_options = log_probs[first : first + len(one.encoded)]
            scores, tokens_of = [p.mean().item() for p in of_options], [len(p) for p in of_options]
            said, true = options[likeliest_option(scores, tokens_of)], options[one.source.correct]
            prediction = Prediction(*_about(one, group), true, said, (), scores, options=list(options))
            prediction.option_tokens = tokens_of
        yield one, _labelled(prediction, group, protocol)


def _predict_few_shot(
    prefixes: PromptPrefixes, groups: Sequence[ImageGroup], protocol: Protocol
) -> Iterator[tuple[_Asked, Prediction]]:
    """Clozes and multiple-choice questions behind examples."""
    found: list[tuple[_Asked, Asked]] = []
    for index, group in enumerate(groups):
        questions: dict[Literal["cloze", "choice"], list[tuple[Cloze | MultipleChoice, str]]] = {
            "cloze": [(c, protocol.cloze(c, group)) for c in group.clozes],
            "choice": [(c, protocol.choice(c, group)) for c in group.choices],
        }
        for task, sources in questions.items():
            if not protocol.skips(group, task) and has_examples(prefixes.mllm, protocol, group, task):
                for number, (source, question) in enumerate(sources):
                    found.append((_Asked(index, number, task, source, [], 0), Asked(group, task, question)))
    texts = answer_behind(prefixes, protocol, [asked for _, asked in found], MAX_NEW_TOKENS)
    for (one, asked), text in zip(found, texts, strict=True):
        yield one, _labelled(_read(one, asked.group, protocol.read(text), protocol), asked.group, protocol)


def _about(one: _Asked, group: ImageGroup) -> tuple[str, str, Literal["generation", "cloze", "choice"], int, str]:
    return str(group.split), group.person, one.task, one.number, one.source.question


def _read(one: _Asked, group: ImageGroup, text: str, protocol: Protocol) -> Prediction:
    """A cloze or a multiple-choice question from its generated answer."""
    if isinstance(one.source, MultipleChoice):
        options = one.source.options
        said, true = protocol.option(text, options), options[one.source.correct]
        return Prediction(*_about(one, group), true, said, options=list(options))
    return Prediction(*_about(one, group), one.source.answer, text)


def _labelled(prediction: Prediction, group: ImageGroup, protocol: Protocol) -> Prediction:
    prediction.modality, prediction.protocol = MODALITIES[group.image is None], protocol.name
    prediction.image = group.image.key if group.image is not None else ""
    return prediction


def _moments(tokens: AnswerTokens, questions: Sequence[int]) -> dict[int, tuple[list[float], list[float]]]:
    """Mean and variance of the log-probability of a token drawn from the model, at each answer token of questions."""
    of = tokens.question.cpu()
    chosen = torch.isin(of, torch.tensor(questions, dtype=of.dtype)).nonzero()[:, 0]
    if not len(chosen):
        return {}
    parts = [log_prob_moments(tokens.logits[part.to(tokens.logits.device)]) for part in chosen.split(MOMENT_TOKENS)]
    mean, variance = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
    mine = of[chosen]
    return {q: (mean[mine == q].tolist(), variance[mine == q].tolist()) for q in questions}


def _answer_blindly(
    mllm: MLLM, groups: Sequence[ImageGroup], predictions: Sequence[Prediction], protocol: Protocol
) -> None:
    """Answers the open questions of all groups without their images."""
    asked = [
        replace(g, image=None, vqa=tuple(protocol.open(q, g)[0] for q in g.vqa), choices=(), clozes=())
        for g in groups
        if g.vqa
    ]
    texts = (text for row in generate(mllm, asked, protocol.max_new_tokens) for text in row)
    wanted = (p for p in predictions if p.task == "generation")
    for prediction, text in zip(wanted, texts, strict=True):
        prediction.answer = text


def _kl_gold(tokens: AnswerTokens, gold: AnswerTokens) -> list[float]:
    """KL(gold || model) of each question, mean over its tokens."""
    return tokens.mean_by_question(token_kl(gold.logits.softmax(-1), tokens.logits)).tolist()
