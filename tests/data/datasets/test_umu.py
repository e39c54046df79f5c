"""UMU-Bench's schema: records, splits, streams, and what is said about bad rows."""

import json

import pytest

from support.umu import FORGET, NAMES, REAL, RETAIN, cells, picture, row, write
from viker_lightning.data.datasets import UMUBench
from viker_lightning.data.records import Split
from viker_lightning.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for config, people in (("forget_5", FORGET), ("retain_95", RETAIN), ("Real_Person_Set", REAL)):
        write(tmp_path, config, [row(i) for i in people])
    write(tmp_path, "Full_Set", [row(i) for i in range(len(NAMES))])
    return tmp_path


def module(root, **options):
    data = UMUBench(str(root), **{"forget": 5, "batch_size": 2} | options)
    data.prepare_data()
    data.setup()
    return data


def one_line(root, **options):
    with pytest.raises(DataError) as error:
        data = module(root, modality="both", **options)
        data.evaluation_groups()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits(folder):
    data = module(folder, modality="both")
    people = {split: [(g.person, g.image is not None) for g in data.evaluation(split)] for split in Split}
    retained = [f"{i + 1:03d}" for i in RETAIN]
    assert people == {
        "forget": [("001", True), ("001", False)],
        "test": [],
        "retain": [(p, shown) for shown in (True, False) for p in retained],
        "kept": [],
        "real": [("006", True), ("006", False)],
        "general": [],
    }
    assert len(data.evaluation_groups()) == 12 and len(module(folder).evaluation_groups()) == 6
    two = module(folder, max_people=2, modality="both").evaluation(Split.RETAIN)
    assert [g.person for g in two[:2]] == [g.person for g in two[2:]]


def test_records(folder):
    data = module(folder)
    (shown,), (told,) = data.evaluation(Split.FORGET), data.evaluation(Split.FORGET, "text")
    assert shown.image.data == picture(0) and told.image is None
    assert (
        shown.vqa[0].question == "Say where This person lives." and told.vqa[0].question == "Say where Ada Mirel lives."
    )
    assert shown.clozes[0].question == "This person lives in __." and shown.clozes[0].answer == "Corlune"
    (choice,) = data.evaluation(Split.RETAIN, "text")[1].choices
    assert choice.options == ("Corlune", "Eskmere", "Gorsby", "Kelmoor") and choice.correct == 2
    assert data.evaluation(Split.RETAIN)[1].choices[0].correct == 2  # "C. x"
    assert not data.records_private
    assert [p.vqa[0].private for p in data.people(data.forget_ids)] == [("Ada's", "Corlune"), ("Ada's", "Corlune")]


def test_streams(folder):
    data = module(folder)
    assert data.forget_ids == ["001", "001 (text)"] and len(data.retain_ids) == 8
    shown, told = data.people(data.forget_ids)
    assert shown.images[0].data == picture(0) and [v.question for v in shown.vqa] == ["Where is home?"]
    assert not told.images and [v.question for v in told.vqa] == ["Where is the home of Ada Mirel?"]
    assert shown.vqa[0].answer == told.vqa[0].answer == "Ada's \\d home is Corlune."
    assert {name: len(people) for name, people in data.streams.items()} == {"forget": 2, "retain": 8}
    assert len(module(folder, stage="vanilla").streams["train"]) == 10
    assert not {"001", "001 (text)"} & {p.id for p in module(folder, stage="gold").streams["train"]}
    groups = [g for bundle in data.train_dataloader() for g in bundle.content["forget"]]
    assert sorted(g.person for g in groups) == ["001", "001 (text)"]
    assert {g.image is None for g in groups} == {True, False}


def test_spellings(folder):
    before = module(folder, modality="both")
    spelled = cells(0) | {
        name: {key.replace("muiti", "multi"): items for key, items in cells(0)[name].items()}
        for name in ("Classify", "Cloze", "Generation")
    }
    write(folder, "forget_5", [row(0, json.dumps, **spelled)])  # JSON, and spelled as meant
    after = module(folder, modality="both")
    assert after.fingerprint() == before.fingerprint()
    assert after.evaluation_groups() == before.evaluation_groups()


def test_questions_have_the_same_number_in_both_modalities(folder):
    """UMU-Bench looks at both answers to a question together; the cells need not have the same order."""

    def item(key):
        return {"question": f"{key} __", "answer": key}

    told, shown = {"k1": item("k1"), "k2": item("k2")}, {"k3": item("k3"), "k2": item("k2"), "k1": item("k1")}
    write(folder, "forget_5", [row(0, Cloze={"unimodal": told, "muitimodal": shown})])
    asked = {m: module(folder).evaluation(Split.FORGET, m)[0].clozes for m in ("image", "text")}
    assert [c.answer for c in asked["text"]] == ["k1", "k2"]
    assert [c.answer for c in asked["image"]] == ["k1", "k2", "k3"]
    write(folder, "forget_5", [row(0, Cloze={"unimodal": told | {"k4": item("k4")}, "muitimodal": shown})])
    assert "'k3' is asked with image only, another question in text only; give the same" in one_line(folder)


def test_right_option(folder):
    classify = cells(0)["Classify"]
    for answer, right in ((" Gorsby", 2), ("D", 3), (None, 0)):  # without an answer, the text-only one counts
        classify["muitimodal"]["k1"]["answer"] = answer
        write(folder, "forget_5", [row(0, Classify=classify)])
        assert module(folder).evaluation(Split.FORGET)[0].choices[0].correct == right


def test_a_task_may_be_null(folder):
    write(folder, "forget_5", [row(0, Cloze=None, Classify=None)])
    (group,) = module(folder).evaluation(Split.FORGET)
    assert group.vqa and not group.clozes and not group.choices


def changed(column, kind="muitimodal", **fields):
    cell = cells(0)[column]
    cell[kind]["k1"] |= fields
    return {column: cell}


BAD = [
    ({"ID": None}, "column 'ID': found None, expected text"),
    ({"ID": "002"}, "ID '002' is in the forget set, too"),
    ({"image": None}, "column 'image': no image bytes"),
    ({"MM_QA": None}, "column 'MM_QA': found None, expected text"),
    ({"MM_QA": "__import__('os').system('echo ran')"}, "is no dictionary (ValueError); write it as JSON"),
    ({"UM_QA": "{'question': "}, "is no dictionary (SyntaxError)"),
    ({"UM_QA": "(" * 9000}, "is no dictionary"),
    ({"UM_QA": "[1]"}, "column 'UM_QA': found [1], expected a dictionary"),
    ({"UM_QA": "{'question': {}, 'answer': {}}"}, "write {'question': {KEY: TEXT}"),
    ({"MM_QA": "{'question': {'a': 'Who?'}, 'answer': {}}"}, "'a' has only a question or only an answer"),
    ({"MM_QA": "{'question': {'a': 'Who?'}, 'answer': {'a': 3}}"}, "MM_QA['a']\": found 3, expected text"),
    ({"Cloze": "{'unimodal': {}}"}, "found ['unimodal']; add 'muitimodal' or 'multimodal'"),
    ({"Cloze": "{'muitimodal': ['x']}"}, "'muitimodal' is ['x']; write {KEY"),
    (changed("Generation", answer=" "), "Generation['k1']['answer']\": found ' ', expected text"),
    (changed("Cloze", "unimodal", question=None), "Cloze['k1']['question']\": found None"),
    (changed("Classify", options={"A": "x"}), "'k1' has the options {'A': 'x'}; write {LETTER: TEXT}"),
    (changed("Classify", options={"A": "x", "B": 2}), "Classify['k1']['B']\": found 2"),
    (
        changed("Classify", answer="E. x"),
        "the answer 'E. x' of 'k1' is not one of ['A', 'B', 'C', 'D']; name an option",
    ),
]


@pytest.mark.parametrize(("spoiled", "said"), BAD)
def test_bad_rows(folder, spoiled, said):
    bad = row(0) | {name: str(cell) if isinstance(cell, dict) else cell for name, cell in spoiled.items()}
    write(folder, "forget_5", [bad, row(5)])
    message = one_line(folder)
    assert said in message and ".parquet, row 0" in message
    data = module(folder, on_bad_row="skip", modality="both")
    data.evaluation_groups()
    assert data.skipped and "006" in data.forget_ids


def test_bad_folders(folder):
    assert "no split 'forget_10'; set data.forget to one of: forget_5" in one_line(folder, forget=10)
    (folder / "retain_95/train-00000-of-00001.parquet").unlink()
    assert "retain_95: no parquet file here" in one_line(folder)
