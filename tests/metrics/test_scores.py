"""The table of scores: what its entries say, what the loop adds up, and scores from outside the package."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from viker_lightning import metrics as m
from viker_lightning.errors import UserError
from viker_lightning.metrics import NUMBERS, Number, Prediction, Score, SplitAnswers, SplitScore
from viker_lightning.metrics.scores import IN_WORDS

TABLE = {one.name: one for one in NUMBERS}


def said(answer="She lives in Oslo.", person="1", log_probs=(-1.0, -3.0), **more):
    about = ("forget", person, "generation", 0, "Where?", "She lives in Oslo.", answer, ("Oslo",))
    return Prediction(*about, list(log_probs), [p > -2 for p in log_probs], [False, True], **more)


@pytest.mark.parametrize(
    ("split", "name", "expected", "sign"),
    [
        ("forget", "keyword_match", "gold", "★"),
        ("forget_text", "keyword_match", "gold", "★"),
        ("test", "accuracy", "gold", "★"),
        ("retain", "keyword_match", "max", "↑"),
        ("general", "keyword_match", "max", "↑"),
        ("retain", "repetition", "min", "↓"),
        ("forget", "truth_ratio", "max", "↑"),
        ("forget", "coherence", "max", "↑"),
        ("forget", "template_probability", "max", "↑"),
        ("test", "kl_gold", "min", "↓"),
        ("real", "bits_per_character", None, "·"),
        ("forget", "mia_loss", None, "·"),
        ("overall", "clear_forget", "gold", "★"),
        ("overall", "model_utility", "max", "↑"),
        ("retain", "refusals", "gold", "★"),
        ("forget", "n", None, "·"),
    ],
)
def test_which_end_is_good(split, name, expected, sign):
    assert TABLE[name].better(split) == expected and TABLE[name].arrow(split) == sign


def test_every_number_is_described_once():
    assert len(TABLE) == len(NUMBERS)
    for one in NUMBERS:
        assert one.about and one.range and one.source and one.title
        assert one.sentence == f"{one.about}, {one.range}" + (f"; {IN_WORDS[one.good]}" if one.good in IN_WORDS else "")
    assert set(m.KNOWLEDGE) <= set(TABLE)


def test_values_are_those_of_the_functions():
    """What the table says an answer adds is what the function of that name gives."""
    p = said("Oslo is where she lives", perturbed=[-2.5, -1.0], kl_gold=0.25, well_formed=True)
    found = {name: values.totals for name, values in m.collect(SplitAnswers([p]), NUMBERS).items()}
    assert found["keyword_match"] == [m.keyword_match(p.answer, p.private)] == found["keyword_match_whole"]
    for name, n in (("rouge_1", 1), ("rouge_2", 2)):
        assert found[name] == [m.rouge_n(p.answer, p.reference, n)]
    assert found["rouge_l"] == [m.rouge_l(p.answer, p.reference)]
    assert found["rouge_l_recall"] == [m.rouge_l(p.answer, p.reference, "recall")]
    assert found["bleu"] == [m.bleu_mllmu(p.answer, p.reference)]
    assert found["answer_probability"] == [pytest.approx(math.exp(-2))]
    assert found["private_probability"] == [pytest.approx(math.exp(-3))]
    assert found["template_probability"] == [pytest.approx(math.exp(-1))]
    assert found["exposure"] == [m.exposure(-2.0, [-2.5, -1.0])]
    assert found["exact_memorization"] == [1.0]  # the last token is the end of sequence
    assert (found["kl_gold"], found["well_formed"], found["refusals"]) == ([0.25], [1.0], [0.0])
    assert found["repetition"] == [0.0] and found["distinct_3"] == [1.0]
    assert not {"accuracy", "cloze", "coherence", "sacrebleu"} & set(found)


def test_a_mean_is_over_all_values_in_order():
    """Tokens of long answers weigh more; sums are those of a plain loop, on every version of Python."""
    values = m.Values()
    values.add("1", [0.1])
    values.add("2", [0.2, 0.4])
    values.add("1", [1e16])
    assert values.mean == ((0.1 + (0.2 + 0.4)) + 1e16) / 4
    assert values.people == ["1", "2", "1"] and values.counts == [1, 2, 1]


def test_the_mean_of_a_classifier_is_one_of_the_numbers():
    answers = [said("a"), said("bb"), said("cccc")]
    clean = [1 / len(p.answer) for p in answers]
    found = m.measure(SplitAnswers(answers, gibberish=lambda texts: [1 / len(t) for t in texts]), NUMBERS)
    assert found["gibberish_clean"] == pytest.approx(sum(clean) / 3)
    assert "gibberish_clean" not in m.measure(SplitAnswers(answers), NUMBERS)


def test_coherence_of_a_split_is_the_mean_of_what_its_answers_add():
    answers = [said(answer_log_prob=-20.0 - i, reference_log_prob=-15.0, person=str(i)) for i in range(3)]
    split = SplitAnswers(answers)
    values = m.collect(split, NUMBERS)["coherence"]
    assert values.mean == pytest.approx(m.measure(split, NUMBERS)["coherence"]) and values.people == ["0", "1", "2"]
    assert len(set(values.totals)) == 3
    unread = SplitAnswers(
        [*answers, said(answer="<image>", answer_log_prob=None, reference_log_prob=-15.0, person="3")]
    )
    assert m.collect(unread, NUMBERS)["coherence"].totals[-1] == 0, "nobody could read it"


MINE = Score(
    name="letters",
    values=lambda p: [len(p.answer)] if p.answer else None,
    about="letters of the answer",
    good="low",
    range=">= 0",
    label="Letters",
)


def test_what_a_file_says_of_a_score_is_enough_to_read_it():
    described = json.loads(json.dumps({one.name: one.described() for one in (*NUMBERS, MINE)}))
    known = m.read_numbers(described)
    mine = known["letters"]
    assert [*known] == [*TABLE, "letters"] and type(mine) is Number
    assert (mine.title, mine.better("forget"), mine.sentence, mine.shown) == (
        *("Letters", "min", "letters of the answer, >= 0; low is good everywhere"),
        MINE.shown,
    )
    # Files of older versions hold sentences, those of newer ones may say more, others may say nonsense.
    assert m.read_numbers({"rouge_l": "ROUGE-L, 0-1", "letters": "of the answer"}) == TABLE == m.read_numbers(None)
    assert m.read_numbers({"letters": described["letters"] | {"colour": "red"}})["letters"] == mine
    assert "letters" not in m.read_numbers({"letters": {"good": "sideways"}})


def test_a_score_from_outside_is_computed_like_any_other():
    answers = SplitAnswers([said("four"), said(""), said("eighteen")])
    assert m.measure(answers, [MINE]) == {"letters": 6.0}
    whole = SplitScore(name="people", about="people", value=lambda split: len({p.person for p in split.predictions}))
    assert m.measure(answers, [whole, MINE]) == {"people": 1, "letters": 6.0}


@pytest.mark.parametrize("values", [0.5, ["a"], [math.nan], [math.inf], "12", ["1"], {1: 2}])
def test_a_score_that_gives_no_numbers_is_named(values):
    broken = replace(MINE, values=lambda p: values)
    with pytest.raises(UserError, match=r"score letters: found .* for forget/1, question 0, expected a list"):
        m.measure(SplitAnswers([said()]), [broken])


@pytest.mark.parametrize("value", [math.nan, math.inf, "x", [1.0]])
def test_a_score_of_a_split_that_gives_no_number_is_named(value):
    whole = SplitScore(name="whole", about="x", value=lambda answers: value)
    with pytest.raises(UserError, match=r"score whole: found .* for forget/1, question 0, expected a number, or None"):
        m.measure(SplitAnswers([said()]), [whole])
    whole = replace(whole, each=lambda answers: [(answers.predictions[0], value)])
    with pytest.raises(UserError, match=r"score whole: found .*, expected a number for each"):
        m.collect(SplitAnswers([said()]), [whole])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere_to_be_found.Score", "cannot be imported"),
        ("letters", "cannot be imported"),
        ("mine_of_test.Nobody", "cannot be imported"),
        ("mine_of_test.text", "is str, expected"),
        ("mine_of_test.made", "is function, expected"),
        ("os.getcwd", "is builtin_function_or_method, expected"),
        ("mine_of_test.taken", "a score called 'rouge_l' already"),
        ("mine_of_test.best", "found good='higher', expected one of by split, high, low"),
    ],
)
def test_what_is_no_score_is_refused_in_one_line(path, message, tmp_path, monkeypatch):
    (tmp_path / "mine_of_test.py").write_text(
        "from viker_lightning.metrics import Score\n"
        "text = 'text'\n"
        "letters = Score(name='letters', about='letters', values=lambda p: [len(p.answer)])\n"
        "taken = Score(name='rouge_l', about='letters', values=lambda p: [1.0])\n"
        "best = Score(name='best', about='letters', values=lambda p: [1.0], good='higher')\n"
        "def made():\n    raise AssertionError('nothing is called')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        m.load_scores(path)
    assert "evaluation.scores" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="'letters' already"):
        m.load_scores(["mine_of_test.letters", "mine_of_test.letters"])
    assert m.load_scores(None) == ()
    (tmp_path / "room_of_test").mkdir()
    (tmp_path / "mine_of_test.py").rename(tmp_path / "room_of_test" / "scores.py")
    assert [one.name for one in m.load_scores("room_of_test.scores.letters")] == ["letters"], "a file in a package"
