"""The exact test against scipy and listing, and how often it is wrong where nothing differs."""

import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test

from viker_lightning.metrics.statistics.intervals import Sums
from viker_lightning.metrics.statistics.paired import ALPHA, EXACT, fewest, holm, swap_test
from viker_lightning.reporting.contenders import Contender, ranks


def sums(values, people=None):
    return Sums.by_person(people or [f"{i:03d}" for i in range(len(values))], list(values), [1] * len(values))


def draws(seed, people, step):
    """Values of people that tie often, as shares of few questions do, or never."""
    values = np.random.default_rng(seed).random((2, people))
    return np.round(values / step) * step if step else values


@pytest.mark.parametrize("step", [0, 0.1, 0.5])
@pytest.mark.parametrize("people", [1, 2, 5, 8, 11])
def test_it_is_the_test_of_scipy(people, step):
    one, two = draws(people, people, step)
    expected = 1.0
    if people > 1:
        mean = permutation_test(
            (one, two), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=2**people
        )
        expected = min(1.0, mean.pvalue)
    assert swap_test(sums(one), sums(two)) == pytest.approx(expected)
    assert swap_test(sums(two), sums(one)) == pytest.approx(expected)


@pytest.mark.parametrize("step", [0, 0.25])
@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_distances_to_gold_are_compared_by_the_same_swaps(step, target):
    """Against listing every way to swap the two methods' values, whose distances are then taken anew."""
    for seed in range(10):
        one, two = draws(seed, 7, step)
        gold = np.full(7, target)

        def gap(a, b):
            return abs(abs(a.mean() - target) - abs(b.mean() - target))

        swaps = [np.array(swap) for swap in itertools.product([True, False], repeat=7)]
        found = [gap(np.where(swap, one, two), np.where(swap, two, one)) for swap in swaps]
        expected = np.mean([value >= gap(one, two) - 1e-12 for value in found])
        assert swap_test(sums(one), sums(two), sums(gold)) == pytest.approx(expected)


def test_people_count_alike_and_only_those_that_all_were_asked_about():
    """A pair is a person's own mean; who was asked by one model alone is no pair; equal values change nothing."""
    one = Sums.by_person(list("aabcdefghx"), [1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0], [1] * 10)
    two = Sums.by_person(list("bacdefgghy"), [0, 0, 0, 0, 0, 0, 0, 0, 0.5, 9], [1] * 10)
    assert swap_test(one, two) == pytest.approx(2 / 2**7), "seven people differ, all one way"
    assert swap_test(one, two, sums([0.0], ["z"])) is None and swap_test(one, sums([1.0], ["z"])) is None
    assert swap_test(one, two, sums([0.0] * 3, list("abc"))) == pytest.approx(2 / 2**3)
    assert swap_test(one, one) == 1.0


def test_rounding_makes_no_difference():
    """.1 + .2 is not .3 in floating point, and yet both ways are equally far."""
    one, two = sums([0.1, 0.2, 0.0]), sums([0.0, 0.0, 0.3])
    assert swap_test(one, two) == 1.0


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_ties_are_ties_in_every_unit(scale):
    one, two = sums([0.1 * scale, 0.2 * scale, 0.0]), sums([0.0, 0.0, 0.3 * scale])
    assert swap_test(one, two) == 1.0


def test_values_that_are_not_finite_are_not_tested():
    values = [0.1, 0.2, float("inf")]
    assert swap_test(sums(values), sums([0.0] * 3)) is None
    assert swap_test(sums([0.1] * 3), sums([0.0] * 3), sums(values)) is None


def test_many_people_are_counted_in_full_or_drawn():
    """Up to 32 that differ in full; drawn signs agree with counted ones."""
    generator = np.random.default_rng(1)
    one, two = generator.normal(0.4, 1, EXACT), generator.normal(0, 1, EXACT)
    counted, drawn = swap_test(sums(one), sums(two)), swap_test(sums(one), sums(two), exact=10)
    assert 0.001 < counted < 0.9 and drawn == pytest.approx(counted, abs=4 * np.sqrt(counted / 99_999))
    assert swap_test(sums([1.0] * 60), sums([0.0] * 60)) == pytest.approx(1 / 100_000), "never 0"


def test_so_many_people_as_are_counted_in_full_are():
    one, two = draws(3, 9, 0)
    assert swap_test(sums(one), sums(two), exact=9) == swap_test(sums(one), sums(two))


def test_draws_are_so_many_and_always_the_same_ones():
    assert swap_test(sums([1.0]), sums([0.0]), exact=0) == 1.0, "every draw of one person's sign is a hit"
    one, two = draws(3, 12, 0)
    assert swap_test(sums(one), sums(two), exact=0) == swap_test(sums(one), sums(two), exact=0)


def test_holm():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_how_many_people_can_show_a_difference():
    assert [fewest(rivals) for rivals in (1, 2, 5)] == [6, 7, 8]


def equal_methods(generator, people, count):
    """Methods that do not differ: each person has a value of their own, and every method strays from it alike."""
    own = generator.random(people)
    shares = generator.binomial(5, own, (count, people)) / 5
    found = [Contender("gold", "gold", {"test": {"accuracy": sums([0.3] * people)}})]
    for i, values in enumerate(shares):
        found.append(Contender(f"m{i}", "method", {s: {"accuracy": sums(values)} for s in ("test", "retain")}))
    return found


@pytest.mark.parametrize("people", [6, 10])
def test_one_comparison_is_wrong_in_five_cases_of_a_hundred_at_most(people):
    """The percentile bootstrap over people was in 9 to 19."""
    generator = np.random.default_rng(people)
    wrong = {"test": 0, "retain": 0}
    for _ in range(600):
        found = equal_methods(generator, people, 2)
        for split in wrong:
            wrong[split] += any(place.apart for place in ranks(found, split, "accuracy", "m0").values())
    assert all(count <= 600 * ALPHA + 3 * np.sqrt(600 * ALPHA * (1 - ALPHA)) for count in wrong.values()), wrong
    assert wrong["retain"] > 0, "it can find something"


@pytest.mark.parametrize("people", [10, 12])
def test_six_equal_methods_are_told_apart_in_five_columns_of_a_hundred_at_most(people):
    """Comparing all with the best, by intervals, half of the columns had a false difference."""
    generator = np.random.default_rng(people)
    wrong = {"test": 0, "retain": 0}
    for _ in range(400):
        found = equal_methods(generator, people, 6)
        for split in wrong:
            wrong[split] += any(place.apart for place in ranks(found, split, "accuracy", "m0").values())
    assert all(count <= 400 * ALPHA + 3 * np.sqrt(400 * ALPHA * (1 - ALPHA)) for count in wrong.values()), wrong


def test_a_difference_is_found():
    """Ten people, a true difference of .2 with a spread of .15: in nine cases of ten."""
    generator = np.random.default_rng(0)
    found = [swap_test(sums(generator.normal(0.2, 0.15, 10)), sums(np.zeros(10))) <= ALPHA for _ in range(200)]
    assert np.mean(found) > 0.9
