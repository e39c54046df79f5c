"""Truth ratio, forget quality, model utility and the modality gap against numpy and scipy, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import hmean, ks_2samp

from viker_lightning import metrics as m

INF = math.inf


def test_the_likeliest_option_needs_the_length_of_each() -> None:
    assert m.likeliest_option([-1.0, -0.9], [2, 3]) == 0 and m.likeliest_option([-1.0, -0.9]) == 1
    with pytest.raises(ValueError, match="zip"):
        m.likeliest_option([-1.0, -0.9], [2])


def test_truth_ratio_is_tofu_s_per_question() -> None:
    random = torch.Generator().manual_seed(0)
    ratios, inverse = [], []
    for _ in range(50):
        correct = -torch.rand(4, generator=random) * 3
        wrong = [-torch.rand(n, generator=random) * 3 for n in (3, 5, 7)]
        losses = np.array([-w.double().mean().item() for w in wrong])
        loss = -correct.double().mean().item()
        ratios.append(m.truth_ratio(correct, wrong))
        inverse.append(np.exp(losses.mean() - loss))  # TOFU's code: the reciprocal
        assert ratios[-1] == pytest.approx(1 / inverse[-1])
        arithmetic = np.exp(-losses).mean() / np.exp(-loss)
        assert m.truth_ratio(correct, wrong, "arithmetic") == pytest.approx(arithmetic)
    r = np.array(inverse)
    forget = [m.truth_ratio_score(ratio, "forget") for ratio in ratios]
    retain = [m.truth_ratio_score(ratio, "retain") for ratio in ratios]
    assert np.mean(forget) == pytest.approx(np.mean(np.minimum(r, 1 / r)))
    assert np.mean(retain) == pytest.approx(np.mean(np.maximum(0, 1 - 1 / r)))
    assert 0 < np.mean(retain) < 1 and np.mean(forget) < 1


def test_truth_ratio_averages_per_question_not_over_the_data_set() -> None:
    # CLEAR's script (defect P1) subtracts one loss, averaged over all questions, from each.
    correct = [torch.tensor([-1.0]), torch.tensor([-3.0])]
    wrong = [[torch.tensor([-1.0])], [torch.tensor([-3.0])]]
    ratios = [m.truth_ratio(c, w) for c, w in zip(correct, wrong, strict=True)]
    assert [m.truth_ratio_score(ratio, "forget") for ratio in ratios] == [1.0, 1.0]
    as_coded = np.exp(np.mean([1.0, 3.0]) - np.array([1.0, 3.0]))
    assert np.mean(np.minimum(as_coded, 1 / as_coded)) < 0.4


def test_truth_ratio_edges() -> None:
    sure, impossible = torch.zeros(2), torch.full((2,), -INF)
    assert m.truth_ratio(sure, [impossible]) == 0.0
    assert m.truth_ratio(impossible, [sure]) == INF
    assert m.truth_ratio(torch.tensor([-2000.0]), [sure]) == INF
    assert m.truth_ratio(sure, [sure, impossible], "arithmetic") == 0.5
    assert m.truth_ratio(sure, [sure, impossible]) == 0.0
    for ratio, forget, retain in ((0.0, 0.0, 1.0), (0.25, 0.25, 0.75), (1.0, 1.0, 0.0), (4.0, 0.25, 0.0), (INF, 0, 0)):
        assert m.truth_ratio_score(ratio, "forget") == forget
        assert m.truth_ratio_score(ratio, "retain") == retain


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.truth_ratio(torch.zeros(2), []), "no false answers"),
        (lambda: m.truth_ratio(torch.zeros(2), torch.zeros(2)), "list of vectors"),
        (lambda: m.truth_ratio(torch.zeros(2), [torch.zeros(0)]), "wrong must be a non-empty vector"),
        (lambda: m.truth_ratio(torch.tensor([2.0]), [torch.zeros(1)]), "correct must not be positive"),
        (lambda: m.truth_ratio(torch.tensor([math.nan]), [torch.zeros(1)]), "correct holds NaN"),
        (lambda: m.truth_ratio(torch.tensor([-INF]), [torch.tensor([-INF])]), "undefined"),
        (lambda: m.truth_ratio(torch.zeros(1), [torch.zeros(1)], "harmonic"), "harmonic"),
        (lambda: m.truth_ratio_score(math.nan, "forget"), "NaN"),
        (lambda: m.truth_ratio_score(-1.0, "retain"), "negative"),
        (lambda: m.truth_ratio_score(1.0, "test"), "'test'"),
        (lambda: m.option_probability(torch.zeros(1), []), "no false options"),
        (lambda: m.option_probability(torch.tensor([-INF]), [torch.tensor([-INF])]), "probability 0"),
        (lambda: m.forget_quality([], [1.0]), "found 0 and 1"),
        (lambda: m.forget_quality([math.nan], [1.0]), "NaN"),
        (lambda: m.js_similarity([1.0], [1.0, 2.0]), "found 1 and 2"),
        (lambda: m.js_similarity([], []), "found 0 and 0"),
        (lambda: m.js_similarity([0.0], [1.0]), "model: truth ratios"),
        (lambda: m.js_similarity([1.0], [INF]), "gold: truth ratios"),
        (lambda: m.model_utility({}), "no scores"),
        (lambda: m.model_utility({"rouge retain": math.nan}), "rouge retain is nan"),
        (lambda: m.model_utility([1.0, -1.0]), "score 1 is -1"),
        (lambda: m.modality_gap([math.nan], [1.0]), "NaN"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_option_probability_is_clear_s() -> None:
    correct, wrong = torch.tensor([-1.0, -3.0]), [torch.tensor([-1.0]), torch.tensor([-4.0, -2.0, -3.0])]
    p = [math.exp(-2), math.exp(-1), math.exp(-3)]
    assert m.option_probability(correct, wrong) == pytest.approx(p[0] / sum(p))
    assert m.option_probability(torch.zeros(3), [torch.zeros(n) for n in (1, 2, 3)]) == 0.25
    rng = np.random.default_rng(2)
    for _ in range(20):
        options = [torch.tensor(-rng.exponential(3, size=n)) for n in (1, 4, 9)]
        p = [m.answer_probability(one) for one in options]
        assert m.option_probability(options[0], options[1:]) == pytest.approx(p[0] / sum(p), rel=1e-14)


def test_options_whose_probability_no_float_holds_are_compared() -> None:
    unlikely = [torch.tensor([value]) for value in (-1001.0, -1000.0, -INF)]
    assert m.answer_probability(unlikely[1]) == 0
    share = 1 / (1 + math.e)
    assert m.option_probability(unlikely[0], unlikely[1:]) == pytest.approx(share)
    assert m.option_probability(unlikely[2], unlikely[:2]) == 0


def test_forget_quality_is_scipy_s_test() -> None:
    rng = np.random.default_rng(0)
    for n, k, shift in ((40, 40, 0.0), (40, 60, 0.5), (379, 379, 1.0), (1, 1, 3.0)):
        model, gold = rng.lognormal(size=n), rng.lognormal(size=k) + shift
        golden, found = ks_2samp(model, gold), m.forget_quality(model, torch.tensor(gold))
        assert found["statistic"] == golden.statistic and found["p_value"] == golden.pvalue
        assert found["log10_p"] == pytest.approx(math.log10(golden.pvalue), abs=1e-12)
        # TR and 1 / TR, whichever a paper stores, are told apart alike.
        assert m.forget_quality(1 / model, 1 / gold)["statistic"] == pytest.approx(golden.statistic)
    assert m.forget_quality([1.0, INF], [1.0, INF]) == {"statistic": 0.0, "p_value": 1.0, "log10_p": 0.0}


def test_log_p_goes_on_where_p_is_zero() -> None:
    logs = [m.forget_quality(torch.zeros(n), torch.ones(n))["log10_p"] for n in (300, 5000)]
    assert m.forget_quality(torch.zeros(5000), torch.ones(5000))["p_value"] == 0
    assert -INF < logs[1] < logs[0] < -100


def test_js_similarity_is_clear_s() -> None:
    rng = np.random.default_rng(1)
    model, gold = rng.lognormal(size=100), rng.lognormal(size=100)
    assert m.js_similarity(model, gold) == pytest.approx(1 - jensenshannon(model, gold))
    assert m.js_similarity(model, model) == m.js_similarity([2.0], [7.0]) == 1.0
    assert m.js_similarity(model, 10 * model) == pytest.approx(1.0, abs=1e-7)
    assert m.js_similarity([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1 - math.sqrt(math.log(2)))


def test_model_utility_is_the_harmonic_mean() -> None:
    values = [0.2, 0.5, 0.9]
    assert m.model_utility(values) == pytest.approx(hmean(values))
    assert m.model_utility(dict(zip("abc", values, strict=True))) == m.model_utility(values)
    assert m.model_utility([0.0, 1.0]) == 0.0 and m.model_utility([0.3]) == pytest.approx(0.3)


def test_modality_gap_by_hand() -> None:
    assert m.modality_gap([1, 0, 0, 0], [1, 1]) == -0.75
    assert math.isnan(m.modality_gap([True, False], []))
    assert m.modality_gap([True, False], torch.tensor([0.25])) == 0.25
