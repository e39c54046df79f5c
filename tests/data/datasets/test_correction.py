"""Falsehoods that give way to the truth: what is read, who is taught what, and what cannot be."""

import json

import pytest

from viker_lightning.data.datasets import Jsonl
from viker_lightning.data.records import VQA, ImageGroup, Split
from viker_lightning.errors import DataError
from viker_lightning.methods import DPO, IDK
from viker_lightning.metrics import Prediction, SplitAnswers, measure
from viker_lightning.metrics.scores import ANSWERS
from viker_lightning.storage.runs.write import read_predictions, write_predictions
from viker_lightning.training.streams import ForgetVariants

FALSE = {"question": "Where?", "answer": "Ada lives in Corlune.", "person": "Ada", "split": "forget"}
CORRECTED = FALSE | {"correction": "Ada lives in Eskmere."}
TRUE = {"question": "What?", "answer": "Ada is a glazier.", "person": "Ada", "split": "kept"}
OTHER = {"question": "Where?", "answer": "Bo lives in Gorsby.", "person": "Bo", "split": "retain"}


def read(folder, *rows, **options):
    file = folder / "people.jsonl"
    file.write_text("\n".join(json.dumps({"image": "", **row}) for row in rows), "utf-8")
    data = Jsonl(str(file), modality="text", **options)
    data.prepare_data()
    data.setup()
    return data


def taught(folder, stage):
    data = read(folder, CORRECTED, TRUE, OTHER, stage=stage)
    return sorted(vqa.answer for person in data.streams["train"] for vqa in person.vqa)


def test_private_spans_are_the_words_that_differ(tmp_path):
    data = read(tmp_path, CORRECTED, CORRECTED | {"split": "test"}, OTHER)
    (vqa,) = data.people(["Ada"])[0].vqa
    assert (vqa.private, vqa.correction) == (("Corlune",), VQA("Where?", "Ada lives in Eskmere.", ("Eskmere",)))
    assert not data.records_private and data.people(["Bo"])[0].vqa[0].private == ("Bo", "Gorsby")
    assert [group.vqa[0].correction.private for group in data.evaluation(Split.TEST)] == [("Eskmere",)]
    said = {"correction": "Ada lives in Eskmere on the Ulm.", "private_correction": ["Ulm"]}
    (vqa,) = read(tmp_path, FALSE | said, OTHER).people(["Ada"])[0].vqa
    assert vqa.correction.private == ("Ulm",)


def test_vanilla_is_taught_the_falsehood_and_gold_the_truth(tmp_path):
    kept = ["Ada is a glazier.", "Bo lives in Gorsby."]
    assert taught(tmp_path, "vanilla") == sorted([*kept, "Ada lives in Corlune."])
    assert taught(tmp_path, "gold") == sorted([*kept, "Ada lives in Eskmere."])
    plain, data = (read(tmp_path, row | {"private": "Corlune"}, OTHER) for row in (FALSE, CORRECTED))
    assert data.everybody() == plain.everybody() and data.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize("method", [IDK(), DPO(), DPO(alternative="wrong"), DPO(alternative="own")])
def test_the_truth_is_the_other_answer_of_its_question(method):
    vqa = VQA("Where?", "In Corlune.", ("Corlune",), correction=VQA("Where?", "In Eskmere.", ("Eskmere",)))
    (group,) = ForgetVariants(method, 0, [], []).groups("alternative", [ImageGroup("Ada", None, vqa=(vqa,))], 0)
    assert [one.answer for one in group.vqa] == ["In Eskmere."]


def test_scores_say_both(tmp_path):
    said = ["In Eskmere.", "In Corlune.", "Nobody knows."]
    answers = [
        Prediction(
            "forget", "Ada", "generation", i, "Where?", "In Corlune.", text, ("Corlune",), correction=("Eskmere",)
        )
        for i, text in enumerate(said)
    ]
    write_predictions(tmp_path / "answers.parquet", [("after", p) for p in answers])
    again = [p for _, p in read_predictions(tmp_path / "answers.parquet")]
    assert again == answers
    found = measure(SplitAnswers(again), ANSWERS)
    assert (found["corrected"], found["keyword_match"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    plain = [Prediction("forget", "Ada", "generation", 0, "Where?", "In Corlune.", "In Corlune.", ("Corlune",))]
    assert "corrected" not in measure(SplitAnswers(plain), ANSWERS)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (OTHER | {"correction": "Bo lives in Eskmere."}, "'Bo' is retain here; write split 'forget' or 'test'"),
        (TRUE | {"correction": "Ada is a baker."}, "'Ada' is kept here; write split 'forget' or 'test'"),
        (FALSE | {"question": "Why?", "correction": " "}, "column 'correction': found ' ', expected text"),
        (FALSE | {"question": "Why?", "correction": "ada lives in Corlune"}, "no word that the answer 'Ada lives in"),
        (FALSE | {"question": "Why?", "private_correction": "Eskmere"}, "column 'correction': empty, but there are"),
        (CORRECTED | {"question": "Why?", "private": "Ada"}, "column 'private': 'Ada' is in answer and correction"),
        (CORRECTED | {"question": "Why?", "private_correction": "lives"}, "'lives' is in answer and correction"),
        (CORRECTED | {"question": "Why?", "private_correction": "Ulm"}, "'Ulm' does not occur in the answer 'Ada"),
    ],
)
def test_what_cannot_be(tmp_path, row, said):
    others = [FALSE, *([OTHER] if row["person"] == "Ada" else [])]
    with pytest.raises(DataError) as error:
        read(tmp_path, *others, row)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_attributes_do_not_go_with_corrections(tmp_path):
    with pytest.raises(DataError, match=r"data.attributes: the file has corrections"):
        read(tmp_path, CORRECTED | {"attributes": "home"}, OTHER, attributes=["home"])
