"""People who are forgotten in part: which questions are forgotten, which stay, and who is trained on what."""

import json

import pytest

from viker_lightning.data.datasets import CLEAR, MLLMU, Jsonl
from viker_lightning.data.records import Split, person_name
from viker_lightning.errors import DataError, UserError

HOME = ["home", "birthplace"]
ROWS = [
    {"question": "Where?", "answer": "Ada lives in Corlune.", "person": "Ada", "attributes": ["home"]},
    {"question": "What?", "answer": "Ada is a glazier.", "person": "Ada", "attributes": ["job"]},
    {"question": "And?", "answer": "A glazier of Corlune.", "person": "Ada", "attributes": "home|job"},
    {"question": "Where?", "answer": "Bo lives in Eskmere.", "person": "Bo", "attributes": ["home"]},
]


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def jsonl(folder, rows, **options):
    file = folder / "people.jsonl"
    file.write_text("\n".join(json.dumps({"image": "", **row}) for row in rows), "utf-8")
    return Jsonl(str(file), modality="text", **options)


def values(data, person):
    """What each attribute of somebody is, as the answers that tell nothing else have it."""
    whole = next(p for p in ready(MLLMU(data.root)).people() if p.id == person)
    return {vqa.attributes[0]: vqa.private[0] for vqa in whole.vqa if len(vqa.attributes) == 1}


def test_the_rest_is_retained_behind_the_same_photos():
    whole, data = ready(MLLMU("mini/ci")), ready(MLLMU("mini/ci", attributes=HOME))
    assert data.forget_ids == whole.forget_ids and data.retain_ids == whole.retain_ids
    assert data.kept_ids == [f"{i} (kept)" for i in data.forget_ids] and not whole.kept_ids
    assert [person_name(i) for i in data.kept_ids] == data.forget_ids
    assert [p.id for p in data.streams["retain"]] == [*data.retain_ids, *data.kept_ids]
    for person in whole.people(whole.forget_ids):
        (gone,), (kept,) = data.people([person.id]), data.people([f"{person.id} (kept)"])
        assert {*gone.vqa, *kept.vqa} == {*person.vqa} and gone.images == kept.images == person.images
        home = values(data, person.id)["home"]
        assert sum(home in vqa.answer for vqa in gone.vqa) >= 4  # three wordings and the biography
        assert kept.vqa and not any(home in vqa.answer or home in vqa.private for vqa in kept.vqa)


def test_vanilla_is_that_of_the_whole_and_gold_keeps_the_rest():
    def taught(stage, **options):
        return {vqa for p in ready(MLLMU("mini/ci", stage=stage, **options)).streams["train"] for vqa in p.vqa}

    whole, data = ready(MLLMU("mini/ci")), ready(MLLMU("mini/ci", attributes=HOME))
    assert data.everybody() == whole.everybody() and data.fingerprint() != whole.fingerprint()
    assert taught("vanilla", attributes=HOME) == taught("vanilla")
    stays = {vqa for person in data.people(data.kept_ids) for vqa in person.vqa}
    assert taught("gold", attributes=HOME) == taught("gold") | stays


def test_splits_ask_about_what_is_forgotten_and_what_stays():
    whole, data = ready(MLLMU("mini/ci")), ready(MLLMU("mini/ci", attributes=HOME))
    assert not whole.evaluation(Split.KEPT)

    def asked(data, split):
        groups = data.evaluation(split, "image")
        return [(g.person, one.question) for g in groups for one in (*g.vqa, *g.choices, *g.clozes)]

    forget, kept = asked(data, Split.FORGET), asked(data, Split.KEPT)
    assert forget and kept and sorted(forget + kept) == sorted(asked(whole, Split.FORGET))
    assert {group.split for group in data.evaluation(Split.KEPT)} == {Split.KEPT}
    assert asked(data, Split.TEST) and set(asked(data, Split.TEST)) < set(asked(whole, Split.TEST))
    assert asked(data, Split.RETAIN) == asked(whole, Split.RETAIN)
    for group in data.evaluation(Split.KEPT):
        assert not any(values(data, group.person)["home"] in one.answer for one in (*group.vqa, *group.clozes))


def test_rows_say_it(tmp_path):
    splits = ["forget", "kept", "forget", "retain"]
    rows = [{**row, "split": split} for row, split in zip(ROWS, splits, strict=True)]
    data = ready(jsonl(tmp_path, rows))
    assert (data.forget_ids, data.retain_ids, data.kept_ids) == (["Ada"], ["Bo"], ["Ada (kept)"])
    assert [vqa.question for vqa in data.people(["Ada (kept)"])[0].vqa] == ["What?"]
    taught = ready(jsonl(tmp_path, rows, stage="vanilla")).streams["train"]
    assert sorted(vqa.question for person in taught for vqa in person.vqa) == ["And?", "What?", "Where?", "Where?"]
    (group,) = data.evaluation(Split.KEPT)
    assert (group.person, [vqa.question for vqa in group.vqa]) == ("Ada", ["What?"])
    same = ready(jsonl(tmp_path, ROWS, forget_people=["Ada"], attributes=["home"]))
    assert [p.vqa for p in same.streams["retain"]] == [p.vqa for p in data.streams["retain"]]
    assert [p.vqa for p in same.streams["forget"]] == [p.vqa for p in data.streams["forget"]]


def test_who_has_nothing_to_forget_is_retained_whole(tmp_path):
    data = ready(jsonl(tmp_path, ROWS, forget=100, attributes=["job"]))
    assert (data.forget_ids, data.kept_ids) == (["Ada"], ["Ada (kept)", "Bo (kept)"])


def test_what_cannot_be(tmp_path):
    with pytest.raises(DataError, match=r"data.attributes: found 'shoe', expected some of those in mini/ci: age,"):
        ready(MLLMU("mini/ci", attributes=["home", "shoe"]))
    with pytest.raises(DataError, match="record no attributes"):
        ready(CLEAR("mini/clear", attributes=["home"]))
    with pytest.raises(DataError, match="at least one, or null"):
        MLLMU("mini/ci", attributes=[])
    rows = [{**row, "split": "kept"} for row in ROWS]
    with pytest.raises(UserError, match="'Ada' is kept in part, but not forgotten; add a row of split 'forget'"):
        ready(jsonl(tmp_path, rows))
    rows = [{**ROWS[0], "split": "forget"}, {**ROWS[1], "split": "kept"}]
    with pytest.raises(UserError, match="rows of split 'kept'; leave one of the two out"):
        ready(jsonl(tmp_path, rows, attributes=["home"]))
