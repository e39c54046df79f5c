"""Modality-aligned forgetting against the arithmetic of UMU-Bench's own evaluation, written out plainly."""

from __future__ import annotations

import random

import pytest

from viker_lightning import metrics as m


def test_accuracies_count_pairs() -> None:
    rng = random.Random(0)
    image, text = ([rng.random() < 0.5 for _ in range(50)] for _ in range(2))
    both_wrong = sum(1 for a, b in zip(image, text, strict=True) if a == 0 and b == 0) / 50
    both_right = sum(1 for a, b in zip(image, text, strict=True) if a == 1 and b == 1) / 50
    for data, golden in (("forget", both_wrong), ("retain", both_right)):
        counted = [m.aligned_correct(a, b, data) for a, b in zip(image, text, strict=True)]
        assert 0 < sum(counted) / 50 == pytest.approx(golden)
    # Forgotten in one modality only is neither: the two means cannot tell this from half of the pairs forgotten.
    for data in ("forget", "retain"):
        assert not m.aligned_correct(True, False, data) and not m.aligned_correct(False, True, data)


def test_rouge_of_pairs() -> None:
    rng = random.Random(1)
    image, text = ([rng.choice((0.0, rng.random())) for _ in range(50)] for _ in range(2))
    pairs = list(zip(image, text, strict=True))
    assert (0.0, 0.0) in pairs
    golden = {
        "forget": sum((a * a + b * b) / (a + b) if a + b else 0 for a, b in pairs) / 50,
        "retain": sum(2 * a * b / (a + b) if a + b else 0 for a, b in pairs) / 50,
    }
    for data, value in golden.items():
        assert sum(m.aligned_rouge(a, b, data) for a, b in pairs) / 50 == pytest.approx(value)
    assert m.aligned_rouge(1.0, 0.0, "forget") == 1.0 and m.aligned_rouge(1.0, 0.0, "retain") == 0.0
    assert m.aligned_rouge(0.4, 0.4, "forget") == pytest.approx(0.4) == m.aligned_rouge(0.4, 0.4, "retain")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.aligned_rouge(-0.1, 0.0, "forget"), "negative"),
        (lambda: m.aligned_rouge(float("nan"), 0.0, "forget"), "NaN"),
        (lambda: m.aligned_rouge(0.1, 0.0, "test"), "'test'"),
        (lambda: m.aligned_correct(True, True, "test"), "'test'"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
