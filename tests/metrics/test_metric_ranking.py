"""Membership scores, areas and exposure against scikit-learn and plain loops, and at their edges."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from viker_lightning import metrics as m

LP = torch.tensor([-1.0, -5.0, -2.0, -4.0, -3.0])


def test_scores_by_hand() -> None:
    text = "Ada Voss lives in Lima"
    assert m.loss_score(LP) == -3.0
    assert m.zlib_score(LP, text) == -3.0 / len(zlib.compress(text.encode()))
    assert m.reference_score(LP, LP[:1]) == -2.0
    assert m.min_k(LP) == -5.0 and m.min_k(LP, 0.4) == m.min_k(LP, 0.59) == -4.5 and m.min_k(LP, 1) == -3.0
    assert m.min_k(LP[:1], 0.01) == -1.0
    assert m.loss_score(LP.to(torch.bfloat16)) == -3.0
    assert m.zlib_score(LP, text * 20) > m.zlib_score(LP, text)


def test_min_k_plus_plus_is_open_unlearning_s_formula_with_its_sign_turned() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 50, generator=random) * 3
    labels = torch.randint(50, (30,), generator=random)
    all_lp = logits.double().log_softmax(-1)
    p = all_lp.exp()
    mu = (p * all_lp).sum(-1)
    sigma = ((p * all_lp**2).sum(-1) - mu**2).clamp_min(1e-6).sqrt()
    lp = all_lp[torch.arange(30), labels]
    for k in (0.2, 0.4, 1.0):
        naive = np.sort(((lp - mu) / sigma).numpy())[: int(30 * k)].mean()
        assert m.min_k_plus_plus(lp, *m.log_prob_moments(logits), k=k) == pytest.approx(naive, rel=1e-4)
    mean, variance = m.log_prob_moments(logits)
    torch.testing.assert_close(mean.double(), mu, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance.double().clamp_min(1e-6).sqrt(), sigma, rtol=1e-4, atol=1e-5)


def test_moments_of_certain_and_of_even_distributions() -> None:
    mean, variance = m.log_prob_moments(torch.tensor([[0.0, -math.inf, -math.inf], [1.0, 1.0, 1.0]]))
    assert mean.tolist() == pytest.approx([0.0, -math.log(3)]) and variance.tolist() == pytest.approx([0, 0], abs=1e-12)
    # A variance of zero divides by 1e-3, not by zero.
    assert m.min_k_plus_plus(torch.tensor([-1.0]), torch.tensor([-0.5]), torch.zeros(1)) == pytest.approx(-500)


def test_attacks_find_members_where_there_are_any() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 20, 30, generator=random) * 2
    members = logits.argmax(-1)
    strangers = torch.randint(30, (40, 20), generator=random)
    for score in (m.loss_score, m.min_k):
        found = [
            [score(sample[torch.arange(20), labels]) for labels in (seen, unseen)]
            for sample, seen, unseen in zip(logits.log_softmax(-1), members, strangers, strict=True)
        ]
        assert m.auroc(*zip(*found, strict=True)) == 1.0
    assert m.auroc(torch.zeros(3), torch.zeros(4)) == 0.5


def test_auroc_equals_sklearn() -> None:
    rng = np.random.default_rng(2)
    for trial in range(50):
        positive, negative = rng.normal(size=1 + trial), rng.normal(size=1 + trial // 2)
        if trial % 2:
            positive, negative = positive.round(), negative.round()
        truth = [1] * len(positive) + [0] * len(negative)
        golden = roc_auc_score(truth, [*positive, *negative])
        assert m.auroc(positive, torch.tensor(negative)) == pytest.approx(golden, abs=1e-12)
    assert m.auroc([math.inf], [-math.inf]) == 1.0


def test_distance_to_gold_punishes_both_sides() -> None:
    assert m.distance_to_gold(0.5, 0.5, 1.0) == 1.0
    assert m.distance_to_gold(1.0, 0.5, 1.0) == 0.0
    assert m.distance_to_gold(0.75, 0.5, 1.0) == m.distance_to_gold(0.25, 0.5, 1.0) == 0.5
    assert m.distance_to_gold(1e-5, 0.5, 0.9) == 0.0  # the over-unlearned model of defect P12
    assert math.isnan(m.distance_to_gold(0.6, 0.5, 0.5))


def test_exposure_by_hand() -> None:
    others = [-2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]
    assert m.exposure(-1.0, others) == 3.0
    assert m.exposure(-9.0, others) == 0.0
    assert m.exposure(-2.5, others) == 2.0
    assert m.exposure(-1.0, [-1.0]) == pytest.approx(1 - math.log2(1.5))
    chance = np.mean([m.exposure(-float(i), [-float(j) for j in range(2000) if j != i]) for i in range(0, 2000, 10)])
    assert chance == pytest.approx(1 / math.log(2), abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.loss_score(torch.zeros(0)), "non-empty"),
        (lambda: m.loss_score(torch.ones(2)), "not losses"),
        (lambda: m.zlib_score(LP, ""), "empty"),
        (lambda: m.reference_score(LP, -LP), "reference must not be positive"),
        (lambda: m.min_k(LP, 0), "k must be in"),
        (lambda: m.min_k(LP, 20), "k must be in"),
        (lambda: m.min_k(torch.tensor([math.nan])), "NaN"),
        (lambda: m.min_k_plus_plus(LP, LP[:2], LP[:2]), "differ in shape"),
        (lambda: m.min_k_plus_plus(LP, LP, LP), "variance must not be negative"),
        (lambda: m.auroc([], [1.0]), "found 0 and 1"),
        (lambda: m.auroc([math.nan], [1.0]), "NaN"),
        (lambda: m.distance_to_gold(0.5, 1.5, 0.5), "gold area"),
        (lambda: m.distance_to_gold(math.nan, 0.5, 0.5), "model area"),
        (lambda: m.distance_to_gold(0.5, 0.5, -0.1), "full area"),
        (lambda: m.exposure(-1.0, []), "no alternatives"),
        (lambda: m.exposure(math.nan, [-1.0]), "NaN"),
        (lambda: m.exposure(-1.0, [math.nan]), "NaN"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
