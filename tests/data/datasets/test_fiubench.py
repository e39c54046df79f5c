"""FIUBench's schema: records, splits, streams, and what is said about bad rows."""

import json

import pytest

from support.fiubench import LISTS, NAMES, person, picture, uid, write
from viker_lightning.data.datasets import FIUBench
from viker_lightning.data.records import Split
from viker_lightning.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "SFHQ").mkdir()
    for i in range(len(NAMES)):
        (tmp_path / f"SFHQ/SFHQ_pt1_{uid(i)}.jpg").write_bytes(picture(i))
    write(tmp_path, [person(i) for i in range(len(NAMES))])
    return tmp_path


def module(root, **options):
    data = FIUBench(str(root), **{"forget": 5, "batch_size": 2, "first": 6} | options)
    data.prepare_data()
    data.setup()
    return data


def one_line(root, **options):
    with pytest.raises(DataError) as error:
        data = module(root, **options)
        [data.evaluation(split) for split in Split]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits(folder):
    data = module(folder)
    assert data.forget_ids == [uid(1), uid(0)]
    assert data.retain_ids == [uid(3), uid(4), uid(5)]  # not 2, of another forget list; 6 is not among the first
    assert [p.id for p in data.people()] == [uid(i) for i in range(6)]
    assert module(folder, forget=1).retain_ids == data.retain_ids
    people = {split: [g.person for g in data.evaluation(split)] for split in Split}
    nobody: dict[str, list[str]] = {split: [] for split in ("kept", "real", "general")}
    assert people == {"forget": data.forget_ids, "test": data.forget_ids, "retain": [uid(3)], **nobody}
    assert not any(data.evaluation(split, "text") for split in Split)
    assert len(module(folder, retain_list="retain15").evaluation(Split.RETAIN)) == 2
    assert len(module(folder, retain_list=None).evaluation(Split.RETAIN)) == 3
    assert len(module(folder, retain_list=None, max_people=2).evaluation(Split.RETAIN)) == 2
    assert len(module(folder, first=None).people()) == 7
    assert "--data.first=6" in data.vanilla_options()


def test_records(folder):
    data = module(folder)
    assert data.records_private
    asked = data.evaluation(Split.FORGET)[1]
    assert asked.person == uid(0) and asked.image.data == picture(0)
    lives, sings = asked.vqa
    assert lives.private == ("Corlune",)  # as the answer writes it; what it does not hold is left out
    assert lives.paraphrase == "Corlune is the home of this person." and len(lives.perturbed) == 3
    assert (sings.private, sings.paraphrase, sings.perturbed) == ((), "Never.", ("Yes.",))
    test = data.evaluation(Split.TEST)[1]
    assert [(v.question, v.answer) for v in test.vqa] == [
        ("What is the home of this person?", lives.answer),
        ("In which town is this person at home?", lives.answer),
        ("Is this person a singer?", "No."),
    ]
    assert test.vqa[0].private == lives.private and test.vqa[0].paraphrase == lives.paraphrase
    trained = data.people([uid(0)])[0]
    assert trained.images[0].data == picture(0) and [v.question for v in trained.vqa] == [
        lives.question,
        sings.question,
    ]
    assert not any(v.paraphrase or v.perturbed for v in trained.vqa)


def test_streams(folder):
    streams = module(folder).streams
    assert {name: len(people) for name, people in streams.items()} == {"forget": 2, "retain": 3}
    assert len(module(folder, stage="vanilla").streams["train"]) == 6
    assert {p.id for p in module(folder, stage="gold").streams["train"]} == {uid(i) for i in range(2, 6)}
    groups = [g for bundle in module(folder).train_dataloader() for g in bundle.content["forget"]]
    assert sorted(q.answer for g in groups for q in g.vqa) == sorted(
        ["This person lives in Corlune.", "This person lives in Eskmere.", "No.", "No."]
    )


def test_layouts(folder):
    data = module(folder)
    (folder / "full.json").write_text(json.dumps([person(i) for i in range(6)]), "utf-8")
    assert module(folder).fingerprint() == data.fingerprint()  # a list in place of lines
    (folder / "dataset").mkdir()
    (folder / "SFHQ").rename(folder / "dataset/SFHQ")
    assert module(folder).fingerprint() == data.fingerprint()  # images where the paths say


def test_private_parts_are_inferred_without_keywords(folder):
    rows = [person(i) for i in range(6)]
    for row in rows:
        for item in row["qa_list"]:
            item["keywords"] = []
    write(folder, rows)
    data = module(folder)
    assert not data.records_private
    assert data.people([uid(0)])[0].vqa[0].private == data.evaluation(Split.TEST)[1].vqa[0].private == ("Corlune",)


def first(**cells):
    return {"qa_list": [person(0)["qa_list"][0] | cells]}


BAD = [
    ({"unique_id": None}, "column 'unique_id': found None, expected text"),
    ({"unique_id": uid(1)}, f"ID '{uid(1)}' occurs twice"),
    ({"image_path": "/etc/face.jpg"}, "'/etc/face.jpg' leads out of"),
    ({"image_path": "dataset/../../face.jpg"}, "'../../face.jpg' leads out of"),
    ({"image_path": "C:\\face.jpg"}, "leads out of"),
    ({"image_path": "."}, "cannot be read"),
    ({"image_path": "./dataset/SFHQ/none.jpg"}, "none.jpg' cannot be read"),
    ({"image_path": "full.json"}, "not a readable image"),
    ({"qa_list": []}, "column 'qa_list': no question"),
    ({"qa_list": "x"}, "column 'qa_list': found 'x', expected a list of structs"),
    (first(answer=" "), r"column 'qa_list[0].answer': found ' ', expected text"),
    (first(question=7), r"column 'qa_list[0].question': found 7"),
    (first(keywords=[7]), r"column 'qa_list[0].keywords[0]': found 7"),
    (first(perturbed_answer={"a": 1}), r"column 'qa_list[0].perturbed_answer': found {'a': 1}"),
]


@pytest.mark.parametrize(("cells", "said"), BAD)
def test_bad_rows(folder, cells, said):
    write(folder, [person(0) | cells, *(person(i) for i in range(1, 7))])
    message = one_line(folder)
    assert said in message and "full.json, line " in message
    data = module(folder, on_bad_row="skip")
    assert (
        data.forget_ids == [uid(1)] and data.skipped and [g.person for g in data.evaluation(Split.FORGET)] == [uid(1)]
    )


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"forget10": [uid(0)]}, "no list 'forget5'; set data.forget to one of: forget10"),
        (LISTS | {"forget5": ["99"]}, "forget5[0], column 'unique_id': ID '99' has no row in full.json"),
        (LISTS | {"forget5": [["99"]]}, "forget5[0], column 'unique_id': found ['99'], expected text"),
        (LISTS | {"forget5": [uid(1), uid(1)]}, "occurs twice"),
        (LISTS | {"forget5": [uid(6)]}, "nobody is left to forget"),
        (LISTS | {"retain5": [uid(2)]}, f"retain5[0], column 'unique_id': ID '{uid(2)}' is in a forget list, too"),
        ({"forget5": [uid(1)]}, "no list 'retain5'; set data.retain_list to null"),
        ({"forget5": 3}, "expected an object of lists"),
    ],
)
def test_bad_lists(folder, lists, said):
    write(folder, [person(i) for i in range(7)], lists)
    assert said in one_line(folder)


def test_bad_files(folder):
    (folder / "full.json").write_text("[{}, 3]")
    assert "row 0: found {}, expected an object with unique_id" in one_line(folder)
    (folder / "full.json").write_text("[")
    assert "full.json: not JSON" in one_line(folder)
    (folder / "full.json").unlink()
    assert "full.json: cannot be read (No such file or directory)" in one_line(folder)
    (folder / "split.json").unlink()
    assert "split.json: cannot be read" in one_line(folder)
    with pytest.raises(DataError, match="FIUBench has none"):
        FIUBench("mini/ci").folder  # noqa: B018
    assert "data.first" in one_line(folder, first=0)
