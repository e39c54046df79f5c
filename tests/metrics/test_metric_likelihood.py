"""Likelihood scores against plain loops and scikit-learn, and at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from viker_lightning.metrics import answer_probability, exact_memorization, extraction_strength, key_token_auroc


def test_answer_probability_is_the_geometric_mean() -> None:
    p = [0.9, 0.5, 0.1]
    assert answer_probability(torch.tensor(p).log()) == pytest.approx(math.prod(p) ** (1 / 3))
    assert answer_probability(torch.tensor([0.25]).log()) == pytest.approx(0.25)
    assert answer_probability(torch.zeros(4)) == 1.0
    assert answer_probability(torch.tensor([0.0, 1e-5])) == 1.0
    assert answer_probability(torch.tensor([-1.0, -math.inf])) == 0.0
    # Summed in bfloat16 this would stop growing long before the end.
    assert answer_probability(torch.full((4000,), -1.0, dtype=torch.bfloat16)) == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(
    "bad", [torch.tensor([]), torch.zeros(2, 2), torch.tensor([math.nan]), torch.tensor([-1, 2.3])]
)
def test_answer_probability_refuses(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="log_probs"):
        answer_probability(bad)


def strength_by_definition(correct: list[bool]) -> float:
    starts = [k for k in range(len(correct)) if all(correct[k:])]
    return 1 - starts[0] / len(correct) if starts else 0.0


def test_extraction_strength_by_hand() -> None:
    cases = {"1111": 1.0, "0111": 0.75, "1011": 0.5, "1101": 0.25, "1110": 0.0, "0000": 0.0, "1": 1.0, "0": 0.0}
    for bits, expected in cases.items():
        correct = [b == "1" for b in bits]
        assert extraction_strength(torch.tensor(correct)) == expected == strength_by_definition(correct), bits


def test_extraction_strength_and_memorization_equal_their_definitions() -> None:
    random = torch.Generator().manual_seed(0)
    for length in range(1, 60):
        correct = torch.rand(length, generator=random) < 0.8
        assert extraction_strength(correct) == pytest.approx(strength_by_definition(correct.tolist()))
        assert exact_memorization(correct) == pytest.approx(sum(correct.tolist()) / length)
        assert extraction_strength(correct) <= exact_memorization(correct)


@pytest.mark.parametrize("score", [extraction_strength, exact_memorization])
@pytest.mark.parametrize("bad", [torch.tensor([], dtype=torch.bool), torch.ones(2, 2).bool(), torch.tensor([1, 0])])
def test_extraction_strength_and_memorization_refuse(score, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="correct"):
        score(bad)


def test_auroc_equals_sklearn_with_and_without_ties() -> None:
    random = torch.Generator().manual_seed(1)
    for trial in range(100):
        length = 2 + trial
        entropy = torch.rand(length, generator=random)
        if trial % 2:
            entropy = (entropy * 4).round()
        private = torch.rand(length, generator=random) < 0.3
        private[0], private[1] = True, False
        golden = roc_auc_score(private.numpy(), entropy.numpy())
        assert key_token_auroc(entropy, private) == pytest.approx(golden, abs=1e-12)


def test_auroc_by_hand() -> None:
    entropy = torch.tensor([1.0, 2.0, 3.0, 3.0])
    assert key_token_auroc(entropy, torch.tensor([False, False, True, True])) == 1.0
    assert key_token_auroc(entropy, torch.tensor([True, False, False, False])) == 0.0
    assert key_token_auroc(entropy, torch.tensor([False, False, True, False])) == pytest.approx(2.5 / 3)
    assert key_token_auroc(torch.zeros(5), torch.tensor([True, False, True, False, False])) == 0.5
    halves = entropy.to(torch.bfloat16)
    assert key_token_auroc(halves, torch.tensor([False, False, True, False])) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize(
    ("entropy", "private", "message"),
    [
        (torch.rand(3), torch.ones(3).bool(), "one private and one other"),
        (torch.rand(3), torch.zeros(3).bool(), "one private and one other"),
        (torch.rand(3), torch.tensor([True, False]), "differ in shape"),
        (torch.tensor([1.0, math.nan]), torch.tensor([True, False]), "NaN"),
        (torch.rand(2), torch.tensor([1, 0]), "bool"),
        (torch.rand(2, 2), torch.ones(2, 2).bool(), "vector"),
    ],
)
def test_auroc_refuses(entropy: torch.Tensor, private: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        key_token_auroc(entropy, private)
