"""What the pages say of a run and of its attacks, in words."""

from dataclasses import replace

import pytest

from support.run_folders import attacks_record, predictions, write_run
from viker_lightning.reporting.answers import answers_of
from viker_lightning.reporting.attacked import attacked
from viker_lightning.reporting.html import environment_of, rendered
from viker_lightning.reporting.verdict import verdict
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs.read import read_run
from viker_lightning.storage.runs.write import write_predictions


def said(forget=0.02, retain=0.98, form=1.0, gold=True, vanilla=True):
    def of(run, of_gold, of_vanilla):
        return {"run": run} | ({"gold": of_gold} if gold else {}) | ({"vanilla": of_vanilla} if vanilla else {})

    return verdict(
        [
            {"about": "known", "name": "forget set", "of": of(forget, 0.0, 1.0)},
            {"about": "known", "name": "retain set", "of": of(retain, 1.0, 1.0)},
            {"about": "form", "name": "coherence", "of": of(form, 1.0, 1.0)},
            {"about": "gold", "name": "KL to gold", "of": of(7.0, 7.0, 7.0)},
        ]
    )


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ({}, "Forgotten as gold. "),
        ({"forget": 0.05, "retain": 0.95, "form": 0.91}, "Forgotten as gold. "),
        ({"forget": 0.06}, "Forgot too little. "),
        ({"retain": 0.94}, "Forgot, but broke other answers (retain set). "),
        ({"form": 0.9}, "Forgot, but broke other answers (coherence). "),
        ({"forget": 0.5, "retain": 0.1}, "Forgot too little, but broke other answers (retain set). "),
        ({"forget": -0.06}, "Knows less of the forget set than gold, which is no better. "),
        ({"gold": False}, "Without gold nobody can say whether it forgot enough. "),
        ({"gold": False, "form": 0.5}, "Without gold nobody can say whether it forgot enough, but broke other answers"),
        ({"vanilla": False}, "Forgotten as gold; without vanilla nobody can say what was lost. "),
    ],
)
def test_a_run_is_judged_in_a_line(given, begins):
    assert said(**given).startswith(begins)


def test_the_line_has_the_numbers_that_say_so():
    assert said().endswith(
        "Still known: forget set 0.02 (gold 0.00, vanilla 1.00), retain set 0.98 (gold 1.00, vanilla 1.00); "
        "coherence 1.00 (gold 1.00, vanilla 1.00)."
    )
    assert said(gold=False, vanilla=False).endswith("Still known: forget set 0.02, retain set 0.98; coherence 1.00.")


@pytest.mark.parametrize(
    ("changes", "garbled"),
    [
        ({"well_formed": True, "answer_log_prob": -900.0}, False),
        ({"well_formed": False}, True),
        ({"answer_log_prob": -900.0}, True),
        ({"refusal": True, "answer_log_prob": -900.0}, False),
        ({"reference_log_prob": None}, False),
    ],
)
def test_garbled_by_grammar_else_by_coherence(tmp_path, changes, garbled):
    folder = write_run(tmp_path / "run")
    found = [replace(p, **changes) for p in predictions(0, 4)]
    write_predictions(folder / "predictions.parquet", [("after", p) for p in found])
    shown = answers_of(read_run(folder), None, False)
    assert {
        a["garbled"] for group in shown for p in group["people"] for q in p["questions"] for _, a in q["answers"]
    } == {garbled}


@pytest.mark.parametrize(
    ("leaked", "garbled", "forgotten", "others"),
    [
        (0, False, "not leaked", "wrong"),
        (1, False, "leaked", "correct"),
        (0.5, False, "50 % leaked", "50 % correct"),
        (0, True, "garbled", "wrong garbled"),
        (1, True, "leaked garbled", "garbled"),
    ],
)
def test_nonsense_is_no_success(leaked, garbled, forgotten, others):
    parts = environment_of("viker_lightning.reporting").get_template("parts.html").module
    for to_forget, words in ((True, forgotten), (False, others)):
        chips = parts.answer_chips({"leaked": leaked, "garbled": garbled}, to_forget)
        assert " ".join(chips.striptags().split()) == words
        assert not (garbled and "chip good" in chips)


@pytest.mark.parametrize(("kept", "inconclusive"), [(0.49, True), (0.5, False)])
def test_what_breaks_the_model_is_no_defence(tmp_path, kept, inconclusive):
    (tmp_path / "attacks").mkdir()
    write_json(tmp_path / "attacks/attacks.json", attacks_record(kept))
    page = rendered("attacks.html", {"title": "x", "attacks": attacked(tmp_path)})
    assert ("Inconclusive: ask, relearn." in page) == inconclusive == ('chip bad">inconclusive' in page)
    assert page.index("0 of 4 people could be recovered") < page.index("<table")
    assert "relearning on the forget set, 5 steps" in page and "relearning with the adapter kept, 5 steps" in page
    assert "relearning on 1 of 4 people, 5 steps" in page and "taught again" not in page
