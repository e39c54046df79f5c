"""Which end of a number is good: what is said in words, and what reports and dashboards make of it."""

import pytest

from viker_lightning.evaluation import DIRECTIONS, better
from viker_lightning.evaluation.directions import GOLD
from viker_lightning.reporting.html import LABELS
from viker_lightning.reporting.scores import arrow


@pytest.mark.parametrize(
    ("split", "name", "expected"),
    [
        ("forget", "keyword_match", "gold"),
        ("forget_text", "keyword_match", "gold"),
        ("test", "accuracy", "gold"),
        ("retain", "keyword_match", "max"),
        ("retain", "repetition", "min"),
        ("forget", "truth_ratio", "max"),
        ("forget", "coherence", "max"),
        ("test", "kl_gold", "min"),
        ("real", "bits_per_character", None),
        ("forget", "mia_loss", None),
        ("overall", "clear_forget", "gold"),
        ("overall", "model_utility", "max"),
        ("retain", "refusals", "gold"),
        ("forget", "n", None),
        ("forget", "unheard_of", None),
    ],
)
def test_better(split, name, expected):
    assert better(split, name) == expected


def test_what_is_shown_has_a_sign_that_the_words_agree_with():
    for name in set(LABELS) & set(DIRECTIONS):
        said = DIRECTIONS[name]
        for split in ("forget", "test", "forget_text"):
            expected = "↓" if "low is good" in said else "↑" if "high is good" in said else "★"
            assert arrow(split, name) == expected, (split, name)
        for split in ("retain", "real", "general"):
            expected = "↓" if "low is good" in said else "★" if said.endswith(GOLD) else "↑"
            assert arrow(split, name) == expected, (split, name)
