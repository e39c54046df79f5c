"""Which end of a number is good: what is said in words, and what reports and dashboards make of it."""

import pytest

from viker_lightning.evaluation import DIRECTIONS, better
from viker_lightning.reporting.html import LABELS
from viker_lightning.reporting.scores import arrow


@pytest.mark.parametrize(
    ("split", "name", "expected"),
    [
        ("forget", "keyword_match", "min"),
        ("forget_text", "keyword_match", "min"),
        ("test", "accuracy", "min"),
        ("retain", "keyword_match", "max"),
        ("retain", "repetition", "min"),
        ("forget", "truth_ratio", "max"),
        ("forget", "coherence", "max"),
        ("real", "bits_per_character", None),
        ("forget", "mia_loss", None),
        ("overall", "clear_forget", None),
        ("overall", "model_utility", "max"),
        ("forget", "n", None),
        ("forget", "unheard_of", None),
    ],
)
def test_better(split, name, expected):
    assert better(split, name) == expected


def test_dashboards_and_reports_agree():
    for split in ("forget", "test", "retain", "real", "general", "forget_text"):
        for name in set(LABELS) & set(DIRECTIONS):
            assert {"min": "↓", "max": "↑", None: "·"}[better(split, name)] == arrow(split, name), (split, name)
