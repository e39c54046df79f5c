"""Methods over worlds: exact statistics against scipy and listing, and the record and pages of runs made by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import wilcoxon

from viker_lightning.grids.tables.worlds import WRONGLY_MARKED, Measure, differences, statistics_note
from viker_lightning.metrics.statistics.paired import equivalence, hodges_lehmann, holm, sign_flip


def drawn(seed, worlds, step=0.0):
    """Differences that tie often, as shares of few questions do, or never."""
    values = np.random.default_rng(seed).normal(0.1, 0.3, worlds)
    return np.round(values / step) * step if step else values


@pytest.mark.parametrize("step", [0, 0.1, 0.25])
@pytest.mark.parametrize("worlds", [1, 3, 8, 10])
def test_sign_flip_is_that_of_listing(worlds, step):
    for seed in range(5):
        values = drawn(seed, worlds, step)
        sums = [abs(np.dot(signs, values)) for signs in itertools.product([1, -1], repeat=worlds)]
        assert sign_flip(values) == pytest.approx(np.mean([s >= abs(values.sum()) - 1e-9 for s in sums]))


@pytest.mark.parametrize("worlds", [1, 3, 8])
def test_equivalence_is_two_one_sided_tests_by_listing(worlds):
    for seed in range(5):
        values, sides = drawn(seed, worlds), []
        for shifted in (0.2 + values, 0.2 - values):
            sums = [np.dot(signs, shifted) for signs in itertools.product([1, -1], repeat=worlds)]
            sides.append(np.mean([s >= shifted.sum() - 1e-9 for s in sums]))
        assert equivalence(values, 0.2) == pytest.approx(max(sides))


def test_equivalence_at_its_ends():
    """What is not shown to differ is not shown to be alike."""
    assert equivalence([0.0] * 8, 0.05) == equivalence([0.04, -0.04] * 4, 0.05) == 1 / 256
    assert equivalence([0.05] * 8, 0.05) == 1.0 and equivalence([-0.2] * 8, 0.05) == 1.0
    scattered = [0.3, -0.3] * 4
    assert sign_flip(scattered) == 1.0 and equivalence(scattered, 0.05) > 0.2
    assert equivalence([0.0] * 4, 0.05) == 1 / 16, "four worlds show nothing at .05"
    assert equivalence([], 0.05) == 1.0
    assert equivalence([0.0] * 32, 0.05) == 2.0**-32, "counted without listing"
    assert equivalence([0.0] * 60, 0.05) == pytest.approx(1 / 100_000), "drawn, and never 0"


def test_sign_flip_at_its_ends():
    assert sign_flip([0.3] * 8) == 2 / 256 and sign_flip([-0.1] * 8) == 2 / 256
    assert sign_flip([]) == sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0, ".1 + .2 is not .3 in floating point"
    assert sign_flip([1.0] * 60) == pytest.approx(1 / 100_000), "drawn, and never 0"


@pytest.mark.parametrize("worlds", [6, 7, 8, 12])
def test_the_interval_has_what_the_signed_rank_test_does_not_reject(worlds):
    """Shifted just inside an end of the interval, Wilcoxon's exact test says so; just outside, it rejects."""
    for seed in range(5):
        values = drawn(seed, worlds)
        found = hodges_lehmann(values)
        assert found.estimate == pytest.approx(
            np.median([(a + b) / 2 for i, a in enumerate(values) for b in values[i:]])
        )
        for end, inwards in ((found.low, 1e-9), (found.high, -1e-9)):
            assert wilcoxon(values - end - inwards, method="exact").pvalue > 0.05
            assert wilcoxon(values - end + inwards, method="exact").pvalue <= 0.05
            rejected = wilcoxon(values - end + inwards, method="exact").pvalue
        assert found.coverage == pytest.approx(1 - rejected) and found.coverage >= 0.95


def test_few_worlds_have_no_interval():
    """The range of five differences covers 1 - 2/32, of six 1 - 2/64."""
    five, six = hodges_lehmann([1, 2, 3, 4, 5]), hodges_lehmann([1, 2, 3, 4, 5, 6])
    assert (five.estimate, five.low, five.high, five.coverage) == (3, None, None, 0)
    assert (six.estimate, six.low, six.high, six.coverage) == (3.5, 1, 6, 1 - 2 / 64)
    assert hodges_lehmann([1, 2, 3, 4, 5], level=0.9).low == 1
    assert hodges_lehmann(range(1, 9)).coverage == 1 - 2 * 5 / 256, "tables have 3 for 8 pairs: five ways to sum to it"
    with pytest.raises(ValueError, match="no differences"):
        hodges_lehmann([])


def test_the_interval_covers_what_it_should():
    """Of 400 samples of eight symmetric differences, those of rounded ones too."""
    for step in (0, 0.25):
        inside = 0
        for seed in range(400):
            values = np.random.default_rng(seed).normal(0, 1, 8)
            found = hodges_lehmann(np.round(values / step) * step if step else values)
            inside += found.low <= 0 <= found.high
        assert inside / 400 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)


DISTANCE = Measure("test/keyword_match", "test Keywords", "★", "distance", -1)
KEPT = Measure("retain/keyword_match", "retain Keywords", "↑", "kept", 1)
KL = Measure("test/kl_gold", "test KL to gold", "↓", "floor", -1)
FORM = Measure("test/well_formed", "test Well formed", "↑", "value", 1)


def test_what_is_measured():
    own, other = ({one.column: value for one in (DISTANCE, KEPT, KL, FORM)} for value in (0.2, 0.5))
    found = [one.compare(own, other, other, other) for one in (DISTANCE, KEPT, KL, FORM)]
    assert found == pytest.approx([0.3, -0.3, -0.3, 0.2]), "below gold is as far as above it"
    assert [one.compare(own, {}, {}, {}) for one in (DISTANCE, KEPT, KL)] == [None] * 3
    assert FORM.compare(own, {}, {}, {}) == 0.2 and FORM.compare({}, other, other, other) is None


def test_differences_are_paired_by_world_and_positive_is_good():
    """B is closer to gold than the reference in each of eight worlds, however much these differ; C lacks a world."""
    base = np.random.default_rng(0).random(8)
    measured = {
        str(w): {
            "A": {DISTANCE.column: base[w], KEPT.column: 0.0},
            "B": {DISTANCE.column: base[w] - 0.1, KEPT.column: -0.01 * w},
            "C": {DISTANCE.column: base[w] + (-1) ** w if w else None},
        }
        for w in range(8)
    }
    found = differences(measured, [DISTANCE, KEPT], ["A", "B", "C"], "A")
    near, far = found[DISTANCE.column]["B"], found[DISTANCE.column]["C"]
    assert [near[k] for k in ("estimate", "low", "high")] == pytest.approx([0.1] * 3) and near["p"] == 2 / 256
    assert near["p_holm"] == 2 * 2 / 256 and far["p_holm"] == far["p"] > 0.9 and "A" not in found[DISTANCE.column]
    assert far["worlds"] == list("1234567") and near["worlds"] == list("01234567")
    kept = found[KEPT.column]
    assert list(kept) == ["B"] and kept["B"]["estimate"] < 0 and kept["B"]["p"] == kept["B"]["p_holm"] == 2 / 128
    assert differences(measured, [DISTANCE], ["A", "B"], "")[DISTANCE.column] == {}, "no reference, no pairs"


def marked(differences):
    """Whether any of six rivals in eight worlds differs, ``[tables, 8, 6]``: all its differences have one sign."""
    return (abs(np.sign(differences).sum(1)) == 8).any(1)


def test_how_often_nothing_is_marked_is_said():
    least, more = (holm(dict.fromkeys("abcdef", 1.0) | {"a": n / 256})["a"] for n in (2, 4))
    assert sign_flip([1.0] * 8) == 2 / 256 and least <= 0.05 < more, "so that signs alone decide"
    draw = np.random.default_rng(0)
    scores = (draw.normal(size=(4000, 8, 7)) for _ in range(11))
    tables = np.any([marked(one[..., 1:] - one[..., :1]) for one in scores], axis=0)
    assert tables.mean() == pytest.approx(0.38, abs=0.02) and ".38 of tables of eight worlds" in WRONGLY_MARKED
    skewed = draw.exponential(size=(8000, 8, 6)) - 1
    around = [marked(skewed - size * draw.normal(size=(8000, 8, 1))).mean() for size in (0, 0.4)]
    assert around == pytest.approx([0.14, 0.10], abs=0.01) and ".10 to .14 of columns" in WRONGLY_MARKED


def test_how_many_worlds_are_needed_is_said():
    said = statistics_note(7, "ViKeR")
    assert "Differences from ViKeR, which was named in advance" in said and "none of fewer than 6 worlds" in said
    assert "With 6 rivals no fewer than 8 worlds can show a difference: the smallest p of 8 is 2/256" in said
    assert "0.0083 is needed" in said and "With 1 rival no fewer than 6 worlds" in statistics_note(2, "ViKeR")
