"""Truth ratio and forget quality of text-only CLEAR rows, against a plain transformers loop and scipy."""

import json
import math

import pytest
import torch
from scipy.stats import ks_2samp

from viker_lightning.data.datasets.clear import CLEAR
from viker_lightning.data.records import Split
from viker_lightning.evaluation import predict, summarise

TOWNS = ("Alder", "Brigg", "Corve", "Dunmere", "Eastry", "Fenwick")


def row(number, name):
    town = TOWNS[number % len(TOWNS)]
    others = [TOWNS[(number + shift) % len(TOWNS)] for shift in (1, 2, 3)]
    return {
        "question": f"Where was {name} {number} born?",
        "answer": f"{name} {number} was born in {town}.",
        "paraphrased_answer": f"The town of {town} saw the birth of {name} {number}.",
        "perturbed_answer": [f"The town of {other} saw the birth of {name} {number}." for other in others],
    }


@pytest.fixture
def groups(tmp_path):
    """Sixteen forgotten and sixteen retained questions in TOFU's files."""
    for names, author in ((("forget01", "forget01_perturbed"), "Ilva"), (("retain99", "retain_perturbed"), "Oren")):
        for name in names:
            lines = [json.dumps(row(i, author)) for i in range(16)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    data = CLEAR(str(tmp_path), forget=1, modality="text")
    data.prepare_data()
    data.setup()
    return [*data.evaluation(Split.FORGET, "text"), *data.evaluation(Split.RETAIN, "text")]


@torch.no_grad()
def mean_log_prob(mllm, question, answer):
    tokenizer = mllm.encoder.tokenizer
    asked = tokenizer(f"USER: {question}\nASSISTANT:").input_ids
    whole = [*tokenizer(f"USER: {question}\nASSISTANT: {answer}").input_ids, tokenizer.eos_token_id]
    logits = mllm.base(input_ids=torch.tensor([whole])).logits[0].double()
    told = range(len(asked), len(whole))
    return sum(logits[t - 1].log_softmax(-1)[whole[t]].item() for t in told) / len(told)


def plain_ratios(mllm, author):
    found = []
    for r in (row(i, author) for i in range(16)):
        true = mean_log_prob(mllm, r["question"], r["paraphrased_answer"])
        wrong = [mean_log_prob(mllm, r["question"], text) for text in r["perturbed_answer"]]
        found.append(math.exp(sum(wrong) / len(wrong) - true))
    return found


def test_truth_ratio_and_forget_quality(mllm, groups):
    mllm = mllm.double()  # so that only a wrong formula can differ
    mllm.eval()
    with mllm.frozen():
        gold, gold_ratios = predict(mllm, groups), plain_ratios(mllm, "Ilva")
    found, ratios, kept = predict(mllm, groups), plain_ratios(mllm, "Ilva"), plain_ratios(mllm, "Oren")
    summary = summarise(found, gold)
    assert len(ratios) == sum(p.split == "forget" for p in found) == 16

    forget = sum(min(r, 1 / r) for r in ratios) / 16
    assert summary["forget"]["truth_ratio"] == pytest.approx(forget, abs=1e-6)
    retain = sum(max(0.0, 1 - r) for r in kept) / 16
    assert summary["retain"]["truth_ratio"] == pytest.approx(retain, abs=1e-6)
    test = ks_2samp(ratios, gold_ratios)
    assert 0 < test.pvalue < 1
    assert summary["forget"]["forget_quality_ks"] == pytest.approx(test.statistic, abs=1e-6)
    assert summary["forget"]["forget_quality_p"] == pytest.approx(test.pvalue, abs=1e-6)
