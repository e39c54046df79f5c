"""Requests to forget that come one after another: who is trained on, evaluated and left out."""

import pytest

from viker_lightning.data.datasets import CLEAR, MLLMU, Jsonl
from viker_lightning.data.records import Split, person_name
from viker_lightning.errors import UserError
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs import requests_of


def finished(folder, requests, **data):
    """The folder of a run that says whom it has forgotten."""
    folder.mkdir()
    write_json(folder / "results.json", {"after": {}})
    write_json(folder / "provenance.json", {"data": data | ({} if requests is None else {"requests": requests})})
    return str(folder)


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def ids(people):
    return [person.id for person in people]


def test_earlier_people_are_evaluated_and_not_trained_on(tmp_path):
    first = ready(MLLMU("mini/ci", forget=5))
    assert first.requests == [first.forget_ids] and len(first.forget_ids) == 1
    run = finished(tmp_path / "first", first.requests)
    plain, data = (ready(MLLMU("mini/ci", forget=10, forgotten_by=given)) for given in (None, run))
    (old,), (new,) = first.forget_ids, set(plain.forget_ids) - set(first.forget_ids)
    assert ids(plain.streams["forget"]) == plain.forget_ids and plain.requests == [plain.forget_ids]
    assert data.requests == [[old], [new]] and ids(data.streams["forget"]) == [new]
    assert data.forget_ids == plain.forget_ids and data.retain_ids == plain.retain_ids
    assert old not in ids(data.streams["retain"]) and ids(data.streams["retain"]) == data.retain_ids
    for split in (Split.FORGET, Split.TEST):
        assert {group.person for group in data.evaluation(split)} == {old, new}
    assert data.fingerprint() == plain.fingerprint()
    third = finished(tmp_path / "second", data.requests)
    assert requests_of(third) == [[old], [new]]


def test_somebody_with_several_photos_is_one_person(tmp_path):
    names = ["Ada #1", "Ada #12", "Ada (text)", "Ada", "Ada #x", "#1"]
    assert [person_name(name) for name in names] == ["Ada", "Ada", "Ada", "Ada", "Ada #x", "#1"]
    data = MLLMU("mini/ci")
    data.forget_ids, data.earlier = ["Ada #1", "Ben #1", "Ada #2", "Ben #2"], [["Ben"]]
    assert data.requests == [["Ben"], ["Ada"]]


def test_a_larger_forget_set_has_the_same_authors(tmp_path):
    """Nothing names those of text-only rows."""
    first, second = {"tofu": True, "forget": 1}, {"tofu": True, "forget": 10, "modality": "both"}
    run = finished(tmp_path / "first", (requests := ready(CLEAR("mini/clear-ci", **first)).requests))
    data = ready(CLEAR("mini/clear-ci", **second, forgotten_by=run))
    assert data.requests[0] == requests[0] and len(requests[0]) == 2, "a name on photos, and an author of texts"
    assert {group.person for group in data.evaluation(Split.FORGET)} == {p for people in data.requests for p in people}


def test_gold_never_sees_anybody_forgotten_so_far(tmp_path):
    run = finished(tmp_path / "first", [["nobody of these"]])
    data = ready(MLLMU("mini/ci", forget=10, stage="gold", forgotten_by=run))
    assert not {*data.forget_ids} & {*ids(data.streams["train"])}


def jsonl(folder):
    lines = [
        f'{{"image": "", "question": "Where does {name} live?", "answer": "In {town}.", "person": "{name}"}}'
        for name, town in (("Ada", "Ulm"), ("Ben", "Rom"), ("Cem", "Lyon"))
    ]
    (folder / "people.jsonl").write_text("\n".join(lines))
    return str(folder / "people.jsonl")


def test_a_list_of_ones_own_is_widened(tmp_path):
    root, run = jsonl(tmp_path), finished(tmp_path / "first", [["Ada"]])
    options = {"modality": "text", "forgotten_by": run}
    data = ready(Jsonl(root, forget_people=["Ada", "Ben"], **options))
    assert data.requests == [["Ada"], ["Ben"]] and ids(data.streams["forget"]) == ["Ben"]
    with pytest.raises(UserError, match=r"has forgotten 'Ada', who is not in the forget set .* widen it"):
        ready(Jsonl(root, forget_people=["Ben"], **options))
    with pytest.raises(UserError, match=r"has forgotten the whole forget set .* add people to it"):
        ready(Jsonl(root, forget_people=["Ada"], **options))


@pytest.mark.parametrize(
    ("requests", "said"),
    [(one, "does not say whom the run has forgotten; .*") for one in (None, [], [[]])]
    + [(one, r"data.requests\S*: found .*, expected .*") for one in ([[1]], "001", 3)],
)
def test_a_run_that_does_not_say_whom_it_has_forgotten(tmp_path, requests, said):
    run = finished(tmp_path / "run", requests)
    with pytest.raises(UserError, match=rf"provenance.json: {said}run it again"):
        ready(MLLMU("mini/ci", forgotten_by=run))


def test_a_run_that_is_not_finished(tmp_path):
    for given, said in (
        (tmp_path / "none", "'.*none' is no folder"),
        ("", "'' is no folder"),
        (tmp_path, ".*not finished"),
    ):
        with pytest.raises(UserError, match=f"^data.forgotten_by: {said}"):
            ready(MLLMU("mini/ci", forgotten_by=str(given)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data.forgotten_by: .*file' is a file; give a folder"):
        MLLMU("mini/ci", forgotten_by=str(tmp_path / "file"))
