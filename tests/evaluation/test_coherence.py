"""Does coherence tell fluent answers from what collapsed models say? With a language model that has learnt to talk."""

import random
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import seed_everything

from viker_lightning import metrics
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.evaluation import score_texts
from viker_lightning.metrics import Prediction
from viker_lightning.models import MLLM
from viker_lightning.training.vanilla import vanilla_model

STEPS = 60


def spoken(data):
    """Questions and answers of people the model learns to talk from, and of others."""
    taught = [vqa for person in data.people(data.retain_ids) for vqa in person.vqa]
    other = [vqa for person in data.people(data.forget_ids) for vqa in person.vqa]
    return list(dict.fromkeys(taught)), list(dict.fromkeys(other))


@pytest.fixture(scope="module")
def models(data, base_folder):
    """The embedded model before and after it has learnt to talk, from text alone."""
    seed_everything(0, verbose=False)
    taught, _ = spoken(data)
    untaught, mllm = MLLM.load(base_folder), MLLM.load(base_folder)
    mllm.train_fully()
    optimizer = torch.optim.AdamW([p for p in mllm.parameters() if p.requires_grad], lr=3e-3)
    rng = random.Random(0)
    for _ in range(STEPS):
        batch = mllm.pack([ImageGroup("", None, None, (vqa,)) for vqa in rng.sample(taught, 24)])
        (-mllm.answer_tokens(batch).log_probs.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [model.eval().requires_grad_(False) for model in (untaught, mllm)]


def collapsed(questions, vocabulary, rng):
    """What models say that were unlearnt too far, by kind: one text a question."""
    words = [vqa.answer.split() for vqa in questions]
    return {
        "repeated word": [" ".join([rng.choice(w)] * 12) for w in words],
        "repeated phrase": [" ".join(w[:3] * 6) for w in words],
        "random letters": ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz    ", k=60)) for _ in words],
        "word salad": [" ".join(rng.choices(vocabulary, k=8)) for _ in words],
        "shuffled words": [" ".join(rng.sample(w, len(w))) for w in words],
    }


def scored(mllm, questions, texts):
    """Coherence of texts said in answer to questions, as a summary has it."""
    found = [
        Prediction("forget", "", "generation", i, vqa.question, vqa.answer, text)
        for i, (vqa, text) in enumerate(zip(questions, texts, strict=True))
    ]
    score_texts(mllm, found)
    usual = metrics.usual_bits([p.reference for p in found], [p.reference_log_prob for p in found])
    return [metrics.coherence(p.answer, p.answer_log_prob, usual) for p in found]


def areas(mllm, questions, vocabulary):
    """Area under the ROC curve of fluent answers (those to the same question about others) against each kind."""
    rng = random.Random(1)
    by_question: dict[str, list[VQA]] = {}
    for vqa in questions:
        by_question.setdefault(vqa.question, []).append(vqa)
    others = [rng.choice(by_question[vqa.question]).answer for vqa in questions]
    fluent = scored(mllm, questions, others)
    kinds = collapsed(questions, vocabulary, rng)
    return {kind: metrics.auroc(fluent, scored(mllm, questions, texts)) for kind, texts in kinds.items()}


@pytest.mark.extended
def test_a_small_language_model_tells_fluent_from_collapsed(models, data):
    taught, other = spoken(data)
    questions = random.Random(2).sample(other, min(60, len(other)))
    vocabulary = sorted({word for vqa in taught for word in re.findall(r"\w+", vqa.answer)})
    before, after = (areas(model, questions, vocabulary) for model in models)
    assert all(area > (0.75 if kind == "shuffled words" else 0.9) for kind, area in after.items()), after
    # A model that cannot talk is content with any words: the number is not right by construction.
    assert before["word salad"] < 0.6 and before["shuffled words"] < 0.6, before


@pytest.mark.slow
def test_the_embedded_vanilla_model_tells_fluent_from_collapsed(data, monkeypatch):
    """The model that judges in the demo: it knows the people, so an answer about another is as fluent to it."""
    monkeypatch.chdir(Path(__file__).parents[2])
    mllm = MLLM.load(vanilla_model("configs/mini/vanilla.yaml", data)).eval().requires_grad_(False)
    taught, other = spoken(data)
    vocabulary = sorted({word for vqa in taught for word in re.findall(r"\w+", vqa.answer)})
    found = areas(mllm, random.Random(2).sample(other, min(60, len(other))), vocabulary)
    assert all(area > (0.75 if kind == "shuffled words" else 0.9) for kind, area in found.items()), found
