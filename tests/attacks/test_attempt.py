"""What an attack got out of a model, and how it is kept."""

import math

import pytest

from viker_lightning.attacks import Attempt, attempts, hit
from viker_lightning.attacks.attempt import read_attempts, write_attempts
from viker_lightning.errors import UserError
from viker_lightning.metrics import Prediction


def asked(answer, private=("Oslo",), split="test", **more):
    return Prediction(split, "p", "generation", 0, "Where?", "In Oslo, a town.", answer, private=private, **more)


def test_a_hit_is_a_private_span_whole():
    assert hit("She lives in Oslo.", ["Oslo"]) == 1 and hit("Oslo?", ["Rome", "Oslo"]) == 1
    assert hit("She lives in a town.", ["Oslo"]) == 0  # all of the template, nothing of hers
    assert hit("In Brenholm.", ["Brenholm, Astavia"]) == 0 and hit("Oslofjord", ["Oslo"]) == 0


def test_from_predictions():
    tokens = {"log_probs": [math.log(0.5), math.log(0.2), math.log(0.4)], "private_tokens": [False, True, True]}
    choice = Prediction("test", "p", "choice", 0, "?", "red", "red")
    given = [asked("In Oslo", **tokens), asked("In Rome", split="real"), asked("?", private=()), choice]
    first, second = attempts(given, "crop", 3)
    assert (first.series, first.x, first.whose, first.hit) == ("crop", 3, "forget", 1)
    assert first.probability == pytest.approx(0.3)
    assert (second.whose, second.hit, second.probability) == ("retain", 0, None)
    assert [one.whose for one in attempts(given, "crop", whose="retain")] == ["retain", "retain"]


def test_kept_and_read_again(tmp_path):
    found = [
        Attempt("a", None, "forget", "p", "?", ("x", "y"), "said", 0.5, None),
        Attempt("a", 2, "retain", *"pq", (), "", 1.0, 0.1),
    ]
    write_attempts(tmp_path / "a.parquet", found)
    assert read_attempts(tmp_path / "a.parquet") == found
    write_attempts(tmp_path / "b.parquet", [])
    assert read_attempts(tmp_path / "b.parquet") == []
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(UserError, match=r"b\.parquet: holds no attempts .*; remove it and attack again"):
        read_attempts(tmp_path / "b.parquet")
