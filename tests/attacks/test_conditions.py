"""From attempts to numbers, against plain lines."""

import numpy as np
import pytest

from viker_lightning.attacks import Attempt, Relearn
from viker_lightning.attacks.conditions import brought_back, conditions, of_condition, relearned, sentence, shared
from viker_lightning.attacks.kinds.relearn import EVERYBODY


def made(series, hits, whose="forget", x=None, probability=0.5):
    """``hits``: by person, one for each question."""
    return [
        Attempt(series, x, whose, person, f"{n}?", ("s",), "", hit, probability)
        for person, values in hits.items()
        for n, hit in enumerate(values)
    ]


def test_a_condition():
    found = made("crop", {"a": [1, 1], "b": [0, 1], "c": [0, 0]}) + made(
        "crop", {"z": [1, 0]}, "retain", probability=1.0
    )
    assert of_condition(found) == {"forget": 0.5, "retain": 0.5, "people": 3, "back": 2, "probability": 0.5}
    many = made("crop", {str(i): [i % 2] for i in range(20)})
    numbers = of_condition(many)
    assert numbers["low"] < 0.5 < numbers["high"] and numbers["people"] == 20


def test_beside_gold():
    none, every = ({person: [hit] for person in "abcdef"} for hit in (0, 1))
    run = made("as asked", none) + made("crop", every)
    gold = made("crop", none) + made("as asked", none)
    first, second = conditions(Relearn(), {"run": run, "gold": gold})
    assert (first["series"], first["clean"], first["more_than_gold"], first["p"]) == ("as asked", True, 0, 1)
    assert (second["series"], second["more_than_gold"], second["p"]) == ("crop", 1.0, pytest.approx(2 / 2**6))
    (alone,) = conditions(Relearn(), {"run": made("crop", {"a": [1]}), "gold": made("crop", {"a": [0]})})
    assert alone["more_than_gold"] == 1 and alone["p"] is None
    (only,) = conditions(Relearn(), {"vanilla": made("crop", {"a": [1]})})
    assert "more_than_gold" not in only and only["vanilla"]["forget"] == 1


def test_beside_several_golds_their_mean_counts():
    run = made("crop", {person: [1, 0] for person in "abcdef"})
    golds = {"gold": {person: [0, 0] for person in "abcdef"}, "gold 2": {person: [1, 0] for person in "abcdef"}}
    (row,) = conditions(Relearn(), {"run": run} | {name: made("crop", hits) for name, hits in golds.items()})
    assert row["more_than_gold"] == 0.25 and row["p"] == pytest.approx(2 / 2**6)
    assert [row[name]["forget"] for name in golds] == [0.0, 0.5], "each has its own numbers"


def test_points_of_a_curve_are_apart():
    run = made("crop", {"a": [0]}, x=1) + made("crop", {"a": [1]}, x=2)
    assert [(row["x"], row["run"]["forget"]) for row in conditions(Relearn(), {"run": run})] == [(1, 0), (2, 1)]


def test_who_is_brought_back():
    clean = made("as asked", {"a": [1, 1], "b": [0, 0], "c": [0, 0], "d": [0, 0]})
    crop = made("crop", {"a": [0, 0], "b": [1, 0], "c": [0, 0], "d": [0, 0]})
    taught = made(EVERYBODY, {"c": [1, 1]}, x=100)
    kept = made("crop", {"z": [1]}, "retain")
    back = brought_back({"relearn": (Relearn(), clean + crop + taught + kept)})
    assert back == {"people": 1, "of": 4, "as_asked": 1}
    assert sentence(back, [back | {"people": 0}], ["relearn", "ask"]) == (
        "1 of 4 people could be recovered, gold 0 of 4; 1 had never been forgotten (attacks: relearn, ask)."
    )
    assert sentence(back, [], ["ask"]).startswith("1 of 4 people could be recovered; 1 had never")
    assert sentence(back, [back, back | {"people": 0}], ["ask"]).startswith(
        "1 of 4 people could be recovered, gold 1, 0 of 4;"
    )
    assert "; without an attack none (" in sentence(back | {"as_asked": 0}, [], ["ask"])


def test_a_beginning_or_what_is_taught_is_no_attack():
    run = made("relearning on other people", {"a": [1]}, x=0) + made("relearning on other people", {"a": [0]}, x=5)
    run += made(EVERYBODY, {"a": [0]}, x=0) + made(EVERYBODY, {"a": [1]}, x=5)
    rows = {(row["series"], row["x"]): row["counts"] for row in conditions(Relearn(), {"run": run})}
    assert [key for key, counts in rows.items() if counts] == [("relearning on other people", 5)]
    assert brought_back({"relearn": (Relearn(), run)})["people"] == 0


def test_how_fast_people_are_learned_again():
    run = made(EVERYBODY, {"a": [0, 0]}, x=0) + made(EVERYBODY, {"a": [1, 1]}, x=5)
    gold = made(EVERYBODY, {"a": [0, 0]}, x=0) + made(EVERYBODY, {"a": [1, 0]}, x=5)
    rows = conditions(Relearn(), {"run": run, "gold": gold})
    assert [row.get("R") for row in rows] == [None, 0.5]
    assert (relearned(0.3, 0.2), relearned(0.1, 0.4), relearned(0.3, -0.1), relearned(-0.1, 0.2)) == (1, 0.25, 1, 0)


def test_p_values_are_of_all_conditions_together():
    people = {person: [hit] for hit, person in enumerate("abcdefgh")}
    every, none = dict.fromkeys(people, (1,)), dict.fromkeys(people, (0,))
    run = made("as asked", none) + made("crop", every) + made("blur", every)
    gold = made("as asked", none) + made("crop", none) + made("blur", none)
    rows = conditions(Relearn(), {"run": run, "gold": gold})
    assert [row["p"] for row in rows] == [1, pytest.approx(2 * 2 / 2**8), pytest.approx(2 * 2 / 2**8)]
    for x in (0, 5, 10, 20):
        run, gold = run + made(EVERYBODY, every if x else none, x=x), gold + made(EVERYBODY, none, x=x)
    rows = conditions(Relearn(), {"run": run, "gold": gold})
    assert [row["p"] for row in rows[:3]] == [1, *[pytest.approx(2 * 2 / 2**8)] * 2], "what is taught is a family apart"
    assert [row["p"] for row in rows[3:]] == [None, *[pytest.approx(3 * 2 / 2**8)] * 3]


def test_the_difference_has_an_interval_from_20_people_on():
    people = {f"{n:02}": [n % 2] for n in range(20)}
    run, gold = made("crop", people), made("crop", {name: [0] for name in people})
    (row,) = conditions(Relearn(), {"run": run, "gold": gold})
    assert row["more_low"] < row["more_than_gold"] == 0.5 < row["more_high"]
    few = {name: [0] for name in list(people)[:19]}
    (row,) = conditions(Relearn(), {"run": made("crop", few), "gold": made("crop", few)})
    assert "more_low" not in row and row["p"] == 1


def test_conditions_that_both_went_through():
    run = made("as asked", {"a": [0]}) + made("crop", {"a": [1]}) + made("blur", {"a": [0]})
    gold = made("as asked", {"a": [0]}) + made("blur", {"a": [0]}) + made("noise", {"a": [0]})
    both = shared({"run": run, "gold": gold})
    assert [[one.series for one in of] for of in both.values()] == [["as asked", "blur"]] * 2
    of_all = shared({"run": run, "gold": gold, "gold 2": made("blur", {"a": [0]})})
    assert [one.series for one in of_all["run"]] == ["blur"]


def test_a_condition_that_asks_less_brings_back_less():
    clean, named = made("as asked", {"a": [0, 0, 0], "b": [0, 0, 0]}), made("named", {"a": [1], "b": [1, 1]})
    assert brought_back({"ask": (Relearn(), clean + named)}) == {"people": 1, "of": 2, "as_asked": 0}
    assert of_condition(named, clean)["back"] == 1 and of_condition(named)["back"] == 2


def test_looking_inside_brings_nobody_back():
    class Inside(Relearn):
        says = False

    back = brought_back({"inside": (Inside(), made("layer", {"a": [1]}))})
    assert back == {"people": 0, "of": 1, "as_asked": 0}


def test_hits_weigh_as_they_are():
    found = made("samples", {"a": [0.2, 0.4]})
    assert of_condition(found)["forget"] == pytest.approx(np.mean([0.2, 0.4])) and of_condition(found)["back"] == 0
