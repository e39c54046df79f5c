"""Intervals against a plain loop, few people without one, and means against results.json's own."""

import math
import random
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from viker_lightning.evaluation import summarise
from viker_lightning.metrics import NUMBERS, Prediction
from viker_lightning.metrics.statistics.intervals import Sums, coverage, difference, interval
from viker_lightning.reporting.run_scores import scored


def plain_interval(rows, draws=4000, seed=1):
    """Draws people one by one, takes the mean of all their rows."""
    people = sorted({person for person, _ in rows})
    generator, means = random.Random(seed), []
    for _ in range(draws):
        drawn = [value for p in generator.choices(people, k=len(people)) for person, value in rows if person == p]
        means.append(sum(drawn) / len(drawn))
    return np.quantile(means, [0.025, 0.975])


@pytest.fixture
def rows():
    generator = random.Random(0)
    return [(f"p{i}", i / 24 + generator.gauss(0, 0.1)) for i in range(24) for _ in range(1 + i % 4)]


def sums(rows):
    return Sums.by_person([p for p, _ in rows], [v for _, v in rows], [1] * len(rows))


def test_interval_is_that_of_a_plain_loop(rows):
    found = interval(sums(rows), draws=20000)
    assert found.value == pytest.approx(sum(v for _, v in rows) / len(rows))
    assert [found.low, found.high] == pytest.approx(plain_interval(rows), abs=0.015)
    assert found.people == 24


def test_order_of_rows_changes_nothing(rows):
    assert interval(sums(rows)) == interval(sums(rows[::-1]))
    assert interval(sums(rows), seed=1) != interval(sums(rows))


def test_questions_of_one_person_are_no_new_evidence(rows):
    """Ten copies of every question leave the interval as it was; an interval over questions would shrink."""
    once, tenfold = interval(sums(rows)), interval(sums(rows * 10))
    assert (once.low, once.high) == pytest.approx((tenfold.low, tenfold.high))


def test_interval_covers_what_it_should():
    """Of 300 samples of 40 people, the mean of the population is inside about 95 % of the intervals."""
    generator = np.random.default_rng(0)
    inside = 0
    for i in range(300):
        values = generator.normal(0.3, 1.0, 40)
        found = interval(Sums.by_person([str(p) for p in range(40)], values.tolist(), [1] * 40), draws=500, seed=i)
        inside += found.low <= 0.3 <= found.high
    margin = NormalDist().inv_cdf(0.999) * math.sqrt(0.95 * 0.05 / 300)
    assert 0.93 - margin <= inside / 300 <= 0.95 + margin


@pytest.mark.parametrize(("people", "known"), [(1, False), (6, False), (19, False), (20, True)])
def test_few_people_have_no_interval(people, known):
    """A bootstrap over twelve people covers .87 to .92, not .95."""
    one, two = (
        Sums.by_person([str(p) for p in range(people)], [p * x for p in range(people)], [2] * people) for x in (1, 3)
    )
    for found in (interval(one), difference(two, one)):
        assert found.people == people and found.has_interval == known
    assert interval(one).value == pytest.approx(sum(range(people)) / (2 * people))


def test_what_is_said_of_coverage():
    assert coverage({"forget": 4, "retain": 19, "real": 20}) == "Intervals: none for forget, retain (under 20 people)."
    assert coverage({"retain": 20}) == coverage({}) == ""


def test_difference_is_paired(rows):
    """People differ by far more than the change, so only a pairwise interval excludes 0."""
    before, after = sums(rows), sums([(p, v - 0.05) for p, v in rows])
    found = difference(after, before)
    assert (found.value, found.low, found.high) == pytest.approx((-0.05, -0.05, -0.05))
    assert interval(before).high - interval(before).low > 0.2
    assert difference(after, Sums.by_person(["somebody else"], [1.0], [1])) is None


def prediction(generator, split, person, number, modality):
    words = ["she", "lives", "in", "Oslo", "Rome", "and", "paints"]
    tokens = generator.randint(2, 6)
    log_probs = [-generator.random() for _ in range(tokens)]
    about = (
        split,
        person,
        "generation",
        number,
        "Where?",
        "She lives in Oslo.",
        " ".join(generator.choices(words, k=6)),
    )
    refusal = number == 1
    return Prediction(
        *about[:-1],
        answer="I'm not able to tell." if refusal else about[-1],
        refusal=refusal if person != "2" else None,
        well_formed=generator.random() < 0.5,
        ended=(None, True, False)[number % 3],
        private=("Oslo, Norway",) if number % 3 else (),
        log_probs=log_probs,
        correct=[p > -0.4 for p in log_probs],
        private_tokens=[i % 2 == 1 and number % 3 > 0 for i in range(tokens)],
        kl_gold=generator.random(),
        modality=modality,
        answer_log_prob=-generator.random() * 30,
        reference_log_prob=-generator.random() * 30,
    )


def test_means_are_those_of_the_results():
    generator = random.Random(0)
    found = [
        prediction(generator, split, str(person), number, modality)
        for split in ("forget", "retain")
        for modality in ("image", "text")[: 2 if split == "forget" else 1]
        for person in range(3)
        for number in range(4)
    ]
    found += [
        Prediction(
            *("forget", str(i), "choice", 0, "?", "red", generator.choice(["red", "green"])),
            **{"log_probs": [-1.0, -0.9], "options": ["red", "green"], "option_tokens": [2, 3]},
        )
        for i in range(3)
    ]
    found += [Prediction("retain", str(i), "cloze", 0, "__", "red", generator.choice(["red", "x"])) for i in range(3)]
    summary, ours = summarise(found), scored(found)
    assert set(ours) == {"forget", "forget_text", "retain"}
    compared = 0
    for split, scores in ours.items():
        for name, one in scores.items():
            assert one.mean == pytest.approx(summary[split][name], abs=1e-6), (split, name)
            assert name in {number.name for number in NUMBERS}
            compared += 1
    assert compared >= 30
    wanted = {"accuracy", "accuracy_per_token", "cloze", "coherence", "well_formed", "refusals", "keyword_match_whole"}
    assert wanted <= set(ours["forget"]) | set(ours["retain"])
    # A file from before these were noted: nothing of it is lost, and both read it in the same way.
    new = {"ended": None, "refusal": None, "well_formed": None, "option_tokens": []}
    old = [replace(p, **new) for p in found]
    summary, ours = summarise(old), scored(old)
    assert wanted - {"cloze", "well_formed"} <= set(ours["forget"]) and "well_formed" not in ours["forget"]
    for split, scores in ours.items():
        for name, one in scores.items():
            assert one.mean == pytest.approx(summary[split][name], abs=1e-6), (split, name)


def test_a_split_of_refusals_and_silence_has_no_coherence():
    said = {"answer_log_prob": -3.0, "reference_log_prob": -9.0}
    refusal = Prediction("forget", "0", "generation", 0, "?", "She is a baker.", "I can't answer that.", **said)
    silence = Prediction("forget", "1", "generation", 0, "?", "She is a baker.", " ", reference_log_prob=-9.0)
    for one in (refusal, silence):
        one.log_probs, one.correct, one.private_tokens = [-1.0, -1.0], [True, False], [False, False]
        one.log_prob_mean, one.log_prob_variance = [-2.0, -2.0], [1.0, 1.0]
    summary, ours = summarise([refusal, silence]), scored([refusal, silence])
    assert "coherence" not in summary["forget"] and "coherence" not in ours["forget"]
    assert ours["forget"]["refusals"].mean == summary["forget"]["refusals"] == 0.5
