"""Which tokens of the forget answers are key: read off the entropy of the ideal distribution."""

from collections.abc import Sequence
from typing import Any

import torch

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.records import VQA
from viker_lightning.metrics import key_token_auroc

from .distribution import IdealDistribution


def key_tokens(ideal: IdealDistribution, asked: Sequence[tuple[VQA, bool]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is reported of forget questions and their key tokens; all processes call it together.

    Args:
        ideal: knows the questions.
        asked: each question, and whether it is asked with an image.

    Returns:
        :func:`key_token_report` of all, and as an example ``question``, ``answer`` and ``tokens`` (see
        :func:`key_token_example`) of the one with most private spans.
    """
    mllm = ideal.mllm
    example, image = max(asked, key=lambda pair: (len(pair[0].private), len(pair[0].answer)))
    with mllm.together():
        report = key_token_report(ideal, [mllm.encoder.encode(vqa, image) for vqa, image in asked])
        tokens = key_token_example(ideal, mllm.encoder.encode(example, image))
    return report, {"question": example.question, "answer": example.answer, "tokens": tokens}


def key_token_report(ideal: IdealDistribution, questions: Sequence[Encoded]) -> dict[str, Any]:
    """How well key-token entropy separates private tokens from template tokens.

    Args:
        ideal: knows the questions.
        questions: forget questions with their answers.

    Returns:
        ``auroc`` over all private tokens and ``auroc_first`` over the first token of each private span, each against
        all template tokens (0.5 chance, 1 perfect; left out where nothing is known to be private), mean entropies in
        nats, and counts.
    """
    questions = list(dict.fromkeys(questions))
    entropy = ideal.look_up(questions).entropy.cpu()
    private = torch.tensor([flag for q in questions for flag in q.private])
    first = torch.tensor([flag for q in questions for flag in q.starts])
    report: dict[str, Any] = {
        "images": len(ideal.pictures),
        "tokens": len(entropy),
        "private_tokens": int(private.sum()),
    }
    if private.any() and not private.all():
        report["auroc"] = key_token_auroc(entropy, private)
        report["auroc_first"] = key_token_auroc(entropy[first | ~private], first[first | ~private])
        report["entropy_private"] = entropy[private].mean().item()
        report["entropy_template"] = entropy[~private].mean().item()
    return report


def key_token_example(ideal: IdealDistribution, question: Encoded, top: int = 5) -> list[dict[str, Any]]:
    """Every token of one answer with its entropy and what the ideal distribution would rather say.

    Returns:
        For each answer token: ``token`` (its text within the answer, so that they join to the answer), ``entropy``
        (nats), ``private``, and the ``top`` tokens with their probabilities.
    """
    encoder = ideal.mllm.encoder
    decode = encoder.tokenizer.decode
    values, ids = ideal.distribution([question]).topk(top)
    entropy = ideal.look_up([question]).entropy.tolist()
    return [
        {
            "token": text,
            "entropy": entropy[i],
            "private": question.private[i],
            "top": [[decode([j]), p] for j, p in zip(ids[i].tolist(), values[i].tolist(), strict=True)],
        }
        for i, text in enumerate(encoder.texts(question.answer))
    ]
