"""One's own people from JSONL and CSV."""

import csv
import json
import re

import pytest

from viker_lightning.data.datasets import Jsonl
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Split
from viker_lightning.errors import DataError

PEOPLE = ["Ada", "Bo", "Cy", "Di", "Ed"]
TOWNS = ["Corlune", "Eskmere", "Gorsby", "Kelmoor", "Opalane"]


def picture(i):
    return irrelevant_images("people", 12, size=16)[i].data


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for i, name in enumerate(PEOPLE):
        (tmp_path / f"photos/{name}.png").write_bytes(picture(i))
        (tmp_path / f"photos/{name}2.png").write_bytes(picture(i + 5))
    return tmp_path


def plain():
    """Two photos a person: where they live, asked about the first; what they wear, about the second."""
    rows = []
    for name, town in zip(PEOPLE, TOWNS, strict=True):
        rows += [
            {"image": f"photos/{name}.png", "question": "Where?", "answer": f"They live in {town}.", "person": name},
            {"image": f"photos/{name}2.png", "question": "What?", "answer": "A hat.", "person": name},
        ]
    return rows


def jsonl(folder, rows):
    file = folder / "people.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    return file


def module(root, **options):
    data = Jsonl(str(root), **options)
    data.prepare_data()
    data.setup()
    return data


def names(data):
    return {kind: {i.partition(" #")[0] for i in ids} for kind, ids in (("f", data.forget_ids), ("r", data.retain_ids))}


def test_percentage(folder):
    data = module(jsonl(folder, plain()), forget=40)
    assert len(names(data)["f"]) == 2 and names(data)["f"] | names(data)["r"] == set(PEOPLE)
    assert names(module(folder, forget=40, seed=9)) == names(data)  # the folder holds one file; seed is of the steps
    assert {frozenset(names(module(folder, forget=40, split_seed=s))["f"]) for s in range(6)} != {
        frozenset(names(data)["f"])
    }
    assert len(names(module(folder, forget=1))["f"]) == 1


def test_questions_stay_with_their_photo(folder):
    data = module(jsonl(folder, plain()), forget_people=["Bo"])
    assert data.forget_ids == ["Bo #1", "Bo #2"]
    where, what = data.people(data.forget_ids)
    assert where.images[0].data == picture(1) and [v.question for v in where.vqa] == ["Where?"]
    assert what.images[0].data == picture(6) and [v.question for v in what.vqa] == ["What?"]
    groups = data.evaluation(Split.FORGET)
    assert [(g.person, g.image.data, len(g.vqa)) for g in groups] == [("Bo", picture(1), 1), ("Bo", picture(6), 1)]
    assert len(data.evaluation(Split.RETAIN)) == 8 and not data.evaluation(Split.REAL)
    assert len(module(folder, max_people=1).evaluation(Split.RETAIN)) == 2


def test_private_parts_are_inferred_or_recorded(folder):
    data = module(jsonl(folder, plain()), forget_people=["Bo"])
    assert not data.records_private
    assert [p.vqa[0].private for p in data.people(data.forget_ids)] == [("Eskmere",), ()]
    rows = plain()
    rows[0]["private"] = ["Corlune"]
    data = module(jsonl(folder, rows), forget_people=["Ada"])
    assert data.records_private and data.people(data.forget_ids)[0].vqa[0].private == ("Corlune",)
    assert not any(v.private for p in data.people(data.retain_ids) for v in p.vqa)


def test_split_column(folder):
    rows = [
        row | {"split": split, "options": ["A hat.", "A scarf."] if row["question"] == "What?" else None}
        for row, split in zip(
            plain(), ["forget", "test", "retain", "retain", "real", "real", "general", "general", "", None], strict=True
        )
    ]
    data = module(jsonl(folder, rows))
    assert names(data) == {"f": {"Ada"}, "r": {"Bo", "Ed"}}
    assert [len(data.evaluation(s)) for s in Split] == [1, 1, 4, 0, 2, 2]
    (test,) = data.evaluation(Split.TEST)
    assert test.person == "Ada" and test.image.data == picture(5)
    assert test.image.key not in {p.images[0].key for p in data.people()}
    assert test.choices[0].options == ("A hat.", "A scarf.") and test.choices[0].correct == 0


def test_csv(folder):
    cells = ["image", "question", "answer", "person", "split", "private", "options", "correct", "perturbed"]
    rows = [
        ["photos/Ada.png", "Where, now?", "In Corlune,\nsay Ünlü.", "Ada", "forget", "Corlune|Ünlü", "", "", "In|Out"],
        ["", "Where does Ada live?", "In Corlune.", "Ada", "forget", "Corlune", "Corlune|Gorsby", "Corlune", ""],
        ["photos/Bo.png", "Where?", "In Gorsby.", "Bo", "retain", "", "", "", ""],
    ]
    with (folder / "people.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([cells, *rows])
    data = module(folder)
    assert data.forget_ids == ["Ada #1", "Ada (text)"]
    shown, told = data.people(data.forget_ids)
    assert shown.vqa[0].private == ("Corlune", "Ünlü") and shown.vqa[0].answer == "In Corlune,\nsay Ünlü."
    assert not told.images
    assert data.evaluation(Split.FORGET)[0].vqa[0].perturbed == ("In", "Out")
    (text,) = data.evaluation(Split.FORGET, "text")
    assert text.image is None and text.choices[0].options == ("Corlune", "Gorsby")


def test_nobody_retained(folder):
    rows = [row | {"split": "forget"} for row in plain()]
    data = module(jsonl(folder, rows), batch_size=4, questions_per_image=2)
    assert set(data.streams) == {"forget"} and data.retain_ids == []
    steps = list(data.train_dataloader())
    assert sum(len(g.vqa) for step in steps for g in step.content["forget"]) == 10
    assert set(steps[0].content) == {"forget"}
    assert set(module(folder, stage="vanilla").streams) == {"train"}


def test_paraphrases_are_for_evaluation_only(folder):
    rows = plain()
    before = module(jsonl(folder, rows), forget_people=["Ada"]).fingerprint()
    rows[0] |= {"paraphrase": "Corlune is home.", "perturbed": ["They live in Gorsby."]}
    data = module(jsonl(folder, rows), forget_people=["Ada"])
    assert data.fingerprint() == before
    assert data.evaluation(Split.FORGET)[0].vqa[0].paraphrase == "Corlune is home."
    rows[0]["answer"] = "They live in Gorsby."
    assert module(jsonl(folder, rows), forget_people=["Ada"]).fingerprint() != before


def test_other_columns_are_named(folder, caplog):
    rows = [row | {"note": "x"} for row in plain()]
    module(jsonl(folder, rows))
    assert "ignored, not among image," in caplog.text and caplog.text.strip().endswith("note")


def test_vanilla_options(folder):
    data = module(jsonl(folder, plain()), forget_people=["Di"], split_seed=4)
    options = dict(option.removeprefix("--data.").split("=", 1) for option in data.vanilla_options())
    assert options.pop("class_path").endswith("jsonl.Jsonl")
    other = {
        "forget_people": '["Di"]',
        "split_seed": "4",
        "forget": "10",
        "on_bad_row": "error",
        "protocol": "corrected",
    }
    assert options == {"root": str(data.root), **other}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"forget": 0}, "data.forget: found 0"),
        ({"forget_people": ["Zoe"]}, "'Zoe' has no row without split in .*; found Ada, Bo, Cy, Di, Ed"),
        ({"forget_people": []}, "nobody is left to forget"),
    ],
)
def test_bad_options(folder, options, expected):
    with pytest.raises(DataError, match=expected):
        module(jsonl(folder, plain()), **options)


@pytest.mark.parametrize("name", ["Person #1", "Ada (text) ", "Ada (kept)"])
def test_a_name_that_would_be_taken_for_one_of_several_photos(folder, name):
    """Else "Person #1" and "Person #2" were one person, whom nobody is asked about."""
    file = jsonl(folder, [plain()[0] | {"person": name}, *plain()[2:]])
    rest = name.partition(" ")[0]
    said = rf"line 1, column 'person': found '{re.escape(name)}', which would be .* of '{rest}'; end no name with"
    with pytest.raises(DataError, match=said):
        module(file)
    assert len(module(file, on_bad_row="skip").skipped) == 1


def test_two_ways_to_say_who(folder):
    rows = plain()
    rows[0]["split"] = "forget"
    with pytest.raises(DataError, match=r"data.forget_people: the file has rows of split 'forget'"):
        module(jsonl(folder, rows), forget_people=["Bo"])


def test_which_file(folder):
    with pytest.raises(DataError, match=r"must be a .jsonl, .json, .csv file or hold one; found none"):
        module(folder)
    jsonl(folder, plain())
    (folder / "more.csv").touch()
    with pytest.raises(DataError, match=r"found more.csv, people.jsonl$"):
        module(folder)
    with pytest.raises(DataError, match="found none"):
        module(folder / "missing.jsonl")
