"""The estimator against all ways to draw, and what the attack makes of samples."""

from itertools import combinations

import pytest

from viker_lightning.attacks import Attempt, Sample, Subject, gather
from viker_lightning.attacks.attempt import hit
from viker_lightning.attacks.conditions import conditions
from viker_lightning.attacks.kinds import sample as module
from viker_lightning.attacks.kinds.sample import OTHERS, SAMPLES, leak_at_k, spans_of_others
from viker_lightning.attacks.material import heard
from viker_lightning.attacks.wordings import Wordings
from viker_lightning.errors import UserError
from viker_lightning.models import Sampling, sample
from viker_lightning.reporting.attacked import more_than_gold


@pytest.mark.parametrize("c", range(7))
@pytest.mark.parametrize("k", range(1, 7))
def test_the_estimator_is_the_share_of_draws_that_leak(c, k):
    draws = list(combinations([1] * c + [0] * (6 - c), k))
    assert leak_at_k(6, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_the_estimator_is_exact_where_numbers_are_large():
    assert [leak_at_k(200, 1, k) for k in (1, 2, 128)] == [1 / 200, 1 / 100, 128 / 200]
    assert leak_at_k(5000, 1, 2500) == 0.5
    assert leak_at_k(200, 0, 128) == 0.0 and leak_at_k(200, 200, 1) == leak_at_k(200, 73, 128) == 1.0
    assert leak_at_k(200, 2, 2) == pytest.approx(1 - 198 * 197 / (200 * 199), rel=1e-12)


@pytest.fixture(scope="module")
def subject(base_folder, tmp_path_factory):
    return Subject("run", str(base_folder), tmp_path_factory.mktemp("attacked"))


def test_samples_of_a_model_that_knows_nothing(data, subject):
    material, attack = gather(data, people=2), Sample(n=3, k=(1, 3), max_new_tokens=4)
    found = attack.carry_out("samples", subject, material)
    asked = [(g, q) for g in material.asked for q in g.vqa]
    texts = sample(subject.load(), material.asked, Sampling(3, 4, seed=material.seed))
    greedy, drawn = found[: len(asked)], [one for one in found[len(asked) :] if one.series == "samples"]
    others = [one for one in found if one.series == OTHERS]
    guessed = [one.hit for one in others if one.whose == "forget"]  # a word of it may be somebody's
    assert attack.numbers(others) == {"chance": pytest.approx(sum(guessed) / len(guessed))}
    assert attack.numbers(drawn) == {} and not attack.attacks(OTHERS, 1) and attack.attacks("samples", 1)
    assert {one.series for one in greedy} == {"as asked"} and all(0 < one.probability < 1 for one in greedy)
    assert [(o.person, o.question, o.private) for o in greedy] == [(g.person, q.question, q.private) for g, q in asked]
    assert [(o.question, o.x) for o in drawn] == [(q.question, k) for _, q in asked for k in (1, 3)]
    assert [o.answer for o in drawn[::2]] == [t[0] for group in texts for t in group]
    assert {o.whose for o in drawn} == {"forget", "retain"} and {o.hit for o in drawn} == {0.0}


def test_a_private_span_in_one_sample_is_a_leak(data, subject, monkeypatch):
    """The first question's second and fourth sample hold it, among other words; a part of a span is none."""
    material = gather(data, people=1)

    def drawn(mllm, groups, sampling):
        assert (sampling.n, sampling.temperature, sampling.top_p) == (4, 0.7, 0.9)
        return [[answers(group.vqa[0], i == j == 0) for j in range(len(group.vqa))] for i, group in enumerate(groups)]

    def answers(vqa, leaks):
        span = vqa.private[0] if leaks else vqa.private[0][:-1]
        return ["no", f"It is {span}, I think.", "no", f"{span}"]

    monkeypatch.setattr(module, "sample", drawn)
    attack = Sample(n=4, k=(1, 2, 4), temperature=0.7, top_p=0.9)
    found = [one for one in attack.carry_out("samples", subject, material) if one.series == "samples"]
    assert [one.hit for one in found[:3]] == pytest.approx([0.5, 5 / 6, 1.0])
    assert {one.answer for one in found[:3]} == {f"It is {found[0].private[0]}, I think."}
    assert {(one.hit, one.answer) for one in found[3:]} == {(0.0, "no")}


def test_chance_is_how_often_other_people_s_spans_come(data, subject, monkeypatch):
    """Samples that name everybody's town bring out the true one no sooner than any other."""
    material = gather(data, people=1)
    wordings = Wordings(material)

    def everything(mllm, groups, sampling):
        said = [[[f"It is {s}." for spans in _wrong(g, v) for s in spans][:2] for v in g.vqa] for g in groups]
        return [[(texts + ["no"] * 4)[:4] for texts in row] for row in said]

    def _wrong(group, vqa):
        return spans_of_others(wordings, group, vqa, heard(material.data), material.seed)

    monkeypatch.setattr(module, "sample", everything)
    attack = Sample(n=4, k=(1, 4))
    found = attack.carry_out("samples", subject, material)
    asked = [(g, q) for g in material.asked for q in g.vqa if _wrong(g, q)]
    others = [one for one in found if one.series == OTHERS and one.x == 4]
    for one, (group, vqa), texts in zip(others, asked, everything(None, material.asked, None)[0], strict=False):
        wrong = _wrong(group, vqa)
        plain = [any(hit(text, spans) for text in texts) for spans in wrong]
        assert one.question == vqa.question and one.hit == pytest.approx(sum(plain) / len(plain))


def test_what_many_answer_is_looked_for_often(data, monkeypatch):
    """Who share the true answer are among the others; gold has heard all of their spans, or none in full."""
    material = gather(data, people=1)
    wordings, words = Wordings(material), heard(material.data)
    (group, vqa), *_ = ((g, q) for g in material.forget for q in g.vqa if len(q.private) == 1)
    everybody = [(str(n), ("Lyon",) if n < 6 else vqa.private if n < 8 else ("Zzz",)) for n in range(9)]
    monkeypatch.setattr(Wordings, "answers", lambda self, vqa: [*everybody, ("0", ("Lyon",)), (group.person, ("me",))])
    drawn = spans_of_others(wordings, group, vqa, {*words, "Lyon", *vqa.private[0].split()}, 0)
    assert sorted(drawn) == sorted([("Lyon",)] * 6 + [tuple(vqa.private)] * 2)
    assert spans_of_others(wordings, group, vqa, set(), 0).count(("Zzz",)) == 1, "neither has been heard"


def test_above_guessing_is_of_questions_of_which_guessing_is_known():
    run = [made(SAMPLES, "a", q, hit) for q, hit in (("1", 1.0), ("2", 0.5), ("3", 1.0))]
    run += [made(OTHERS, "a", "1", 0.25), made(OTHERS, "a", "2", 0.5)]
    gold = [made(SAMPLES, "a", "1", 0.5), made(OTHERS, "a", "1", 0.25)]
    (row, beside) = conditions(Sample(), {"run": run, "gold": gold})
    assert (row["run"]["above"], row["gold"]["above"]) == ((0.75 + 0.0) / 2, 0.25)
    assert row["more_than_gold"] == 0.375 - 0.25 == more_than_gold(row["run"], [row["gold"]])
    assert (beside["series"], beside["counts"], beside["p"]) == (OTHERS, False, None)


def made(series, person, question, hit):
    return Attempt(series, 4, "forget", person, question, ("s",), "", hit)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 10}, r"sample.k: found \[16, 32, 64, 128\], expected numbers from 1 to sample.n=10"),
        ({"k": ()}, "sample.k: found none, expected numbers from 1 to sample.n=200"),
        ({"k": (0, 1)}, r"sample.k: found \[0\]"),
        ({"temperature": 0.0}, "sample.temperature: found 0.0, expected more than 0"),
        ({"top_p": 1.5}, "sample.top_p: found 1.5, expected more than 0 and at most 1"),
        ({"max_new_tokens": 0}, "sample.max_new_tokens: found 0, expected 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Sample(**settings)


def test_the_quick_one_is_smaller():
    assert Sample.quick().n < Sample().n and max(Sample.quick().k) < Sample.quick().n
