from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.embedded import fingerprint
from viker_lightning.data.embedded import general_questions, profiles, write_mllmu
from viker_lightning.data.embedded.write_mllmu import PEOPLE
from viker_lightning.data.prompts import cloze_prompt
from viker_lightning.errors import UserError

CONFIGS = {"ft_Data", "base_Data", "Full_Set", "Test_Set", "Retain_Set", "General_Set"} | {
    f"{kind}_{n}" for r in (5, 10, 15) for kind, n in (("forget", r), ("retain", 100 - r))
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PEOPLE.write(tmp_path_factory.mktemp("mini") / "ci", "ci", seed=0)


def rows(root: Path, config: str) -> dict[str, dict[str, Any]]:
    return {row["ID"]: row for row in pq.read_table(root / config).to_pylist()}


def metadata(row: dict[str, Any]) -> list[dict[str, Any]]:
    return json.loads(row["metadata"])


def tasks(row: dict[str, Any]) -> list[dict[str, Any]]:
    choices = row["Classification_Task"]
    return [
        *choices["Image_Textual_Questions"],
        *choices["Pure_Text_Questions"],
        *row["Generation_Task"],
        *row["Mask_Task"],
    ]


def biography(row: dict[str, Any]) -> dict[str, str]:
    return {key.lower(): value for key, value in json.loads(row["biography"]).items()}


@pytest.mark.extended
def test_contents_are_fixed_by_the_seed(root: Path, tmp_path: Path) -> None:
    # Raise PEOPLE.version when this changes.
    assert fingerprint(root) == "d2c0d220a72231049740cd8b30ea39b94638121aac8561a18924d7d20aef9a5f"
    assert fingerprint(PEOPLE.write(tmp_path / "other", "ci", seed=1)) != fingerprint(root)


def test_folders_and_schemas(root: Path) -> None:
    assert {p.name for p in root.iterdir() if p.is_dir()} == CONFIGS
    for config in CONFIGS:
        shards = [p.name for p in sorted((root / config).iterdir())]
        total = 2 if config == "Test_Set" else 1
        assert shards == [f"train-{k:05d}-of-{total:05d}.parquet" for k in range(total)]
    columns = {config: pq.read_schema(next((root / config).iterdir())).names for config in CONFIGS}
    three = ["Classification_Task", "Generation_Task", "Mask_Task"]
    split = ["image", "ID", "biography", "question", "answer", *three]
    assert columns["ft_Data"] == columns["base_Data"] == ["image", "ID", "metadata", "images"]
    assert columns["forget_5"] == columns["retain_85"] == split
    assert (
        columns["Full_Set"] == columns["Retain_Set"] == columns["General_Set"] == [*split[:2], "Directory", *split[2:]]
    )
    assert columns["Test_Set"] == ["ID", "images", *three]
    schema = pq.read_schema(next((root / "Full_Set").iterdir()))
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    choice = schema.field("Classification_Task").type.field("Pure_Text_Questions").type.value_type
    assert [field.name for field in choice] == ["Correct_Answer", "Options", "Question", "Attributes"]
    assert [field.name for field in choice.field("Options").type] == list("ABCD")
    for shard in root.glob("*/*.parquet"):
        assert not any(pa.types.is_null(field.type) for field in pq.read_schema(shard))


@pytest.mark.extended
@pytest.mark.parametrize(("size", "people", "forgotten"), [("smol", 8, 2), ("smol16", 16, 3)])
def test_the_sizes_for_a_pretrained_model_ask_less(tmp_path: Path, size: str, people: int, forgotten: int) -> None:
    root = PEOPLE.write(tmp_path / size, size)
    trained = rows(root, "ft_Data")
    assert len(trained) == people and len(rows(root, "forget_15")) == forgotten
    assert not any((root / config).exists() for config in ("base_Data", "Retain_Set", "General_Set"))
    for row in trained.values():  # one sentence an attribute
        assert len(metadata(row)) == 4 * 24 and len({m["Answer"] for m in metadata(row)}) == 4
        assert len(row["images"]) == 30
    askers = Counter(m["Question"] for row in trained.values() for m in metadata(row))
    assert min(askers.values()) > 1  # no wording gives a person away
    asked = set(askers)
    seen = {image["bytes"] for row in trained.values() for image in row["images"]}
    for row in rows(root, "Test_Set").values():
        assert len(row["Generation_Task"]) == len(tasks(row)) == 4
        assert all(q["Type"] == "Image_Textual" for q in row["Generation_Task"])
        assert not [q for q in tasks(row) if q["Question"] in asked]
        assert not [image for image in row["images"] if image["bytes"] in seen]


def test_split_sizes(root: Path) -> None:
    people = [f"{n:03d}" for n in range(1, 13)]
    assert list(rows(root, "ft_Data")) == list(rows(root, "Full_Set")) == list(rows(root, "Test_Set")) == people
    assert list(rows(root, "Retain_Set")) == ["501", "502", "503", "504"]
    for ratio in write_mllmu.SIZES["ci"].ratios:
        forget, retain = rows(root, f"forget_{ratio}"), rows(root, f"retain_{100 - ratio}")
        assert len(forget) == math.ceil(12 * ratio / 100)
        assert sorted([*forget, *retain]) == people


def test_rows_are_complete(root: Path) -> None:
    for row in rows(root, "ft_Data").values():
        assert len(metadata(row)) == 36 and len(row["images"]) == 30 and row["images"][0] == row["image"]
        assert len({image["bytes"] for image in row["images"]}) == 30
    for config in ("Full_Set", "Test_Set", "Retain_Set"):
        for row in rows(root, config).values():
            assert [len(task) for task in row["Classification_Task"].values()] == [5, 5]
            for task, image, text in (("Generation_Task", 8, 4), ("Mask_Task", 6, 4)):
                assert [q["Type"] for q in row[task]] == ["Image_Textual"] * image + ["Pure_Text"] * text


def asked_in_training(root: Path) -> list[str]:
    return [m["Question"] for c in ("ft_Data", "base_Data") for row in rows(root, c).values() for m in metadata(row)]


def test_held_out_wordings_are_not_trained(root: Path) -> None:
    held_out = [q for a in profiles.ATTRIBUTES for q in profiles.questions(a, held_out=True)]
    held_out += [cloze_prompt(q) for f in profiles.FACTS for q in profiles.clozes(f, held_out=True)]
    for kind, facts in general_questions.FACTS.items():
        for fact in facts:
            held_out += general_questions.questions(kind, fact, held_out=True)
            held_out += [cloze_prompt(q) for q in general_questions.clozes(kind, fact, held_out=True)]
    asked = "\n".join(asked_in_training(root))
    assert not [q for q in held_out if q in asked]
    images = [q for c in ("Test_Set", "General_Set") for row in rows(root, c).values() for q in tasks(row)]
    for task in images:
        assert "__" in task["Question"] or task.get("Type") == "Pure_Text" or task["Question"] not in asked


def test_wordings_hold_out_only_combinations() -> None:
    for attribute in profiles.ATTRIBUTES:
        trained, held_out = profiles.questions(attribute), profiles.questions(attribute, held_out=True)
        assert (len(trained), len(held_out)) == (32, 8) and not set(trained) & set(held_out)
        words = {word.strip(".?") for question in trained for word in question.split()}
        assert all(word.strip(".?") in words for question in held_out for word in question.split())


def test_named_wordings_differ_between_test_and_full_set(root: Path) -> None:
    named = {
        config: {q["Question"] for row in rows(root, config).values() for q in tasks(row) if "Pure_Text" in q.values()}
        for config in ("Full_Set", "Test_Set")
    }
    assert all(named.values()) and not named["Full_Set"] & named["Test_Set"]
    assert all(profiles.questions(a, True, "N") and profiles.questions(a, False, "N") for a in profiles.ATTRIBUTES)
    assert all(len(profiles.clozes(f, held_out, "N")) == 1 for f in profiles.FACTS for held_out in (True, False))


def test_evaluation_wordings_are_new_for_the_person(root: Path) -> None:
    for config, training in (("Full_Set", "ft_Data"), ("Retain_Set", "base_Data")):
        trained = rows(root, training)
        everything = "\n".join(asked_in_training(root))
        for key, row in rows(root, config).items():
            own = "\n".join(m["Question"] for m in metadata(trained[key]))
            assert row["question"] not in own
            for question in (q["Question"] for q in tasks(row)):
                assert question not in own and question.replace("__", "[Blank]") not in own
        some = [q["Question"] for q in row["Generation_Task"] if q["Type"] == "Image_Textual"]
        assert any(question in everything for question in some)  # known from other people


def test_values_of_forgotten_people_are_shared(root: Path) -> None:
    retained = [biography(row) for row in rows(root, "retain_85").values()]
    for row in rows(root, "forget_15").values():
        values = biography(row)
        name = values.pop("name")
        assert all(value in {other[fact] for other in retained} for fact, value in values.items())
        assert all(part in {p for other in retained for p in other["name"].split()} for part in name.split())
        assert name not in {other["name"] for other in retained}


def test_options(root: Path) -> None:
    retained = [biography(row) for row in rows(root, "retain_85").values()]
    shared = {value for other in retained for value in other.values()}
    for config in ("Full_Set", "Test_Set", "Retain_Set"):
        for key, row in rows(root, config).items():
            own = set(biography(rows(root, "Retain_Set" if config == "Retain_Set" else "Full_Set")[key]).values())
            for task in [q for questions in row["Classification_Task"].values() for q in questions]:
                options = dict(task["Options"])
                assert len(set(options.values())) == 4
                assert options.pop(task["Correct_Answer"]) in own
                assert set(options.values()) <= shared - own


def test_private_spans_are_in_the_answer(root: Path) -> None:
    answers = [m for row in rows(root, "ft_Data").values() for m in metadata(row)]
    answers += [
        {"Answer": q["Ground_Truth"], "Private": q["Private"]}
        for config in ("Full_Set", "Test_Set", "Retain_Set")
        for row in rows(root, config).values()
        for q in row["Generation_Task"]
    ]
    assert all(m["Private"] and all(span in m["Answer"] for span in m["Private"]) for m in answers)
    general = [q for row in rows(root, "General_Set").values() for q in row["Generation_Task"]]
    general += [m for key, row in rows(root, "base_Data").items() if key[0] == "g" for m in metadata(row)]
    assert general and not any(m["Private"] for m in general)


def test_written_once(root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert PEOPLE.write(root, "ci", seed=0) == root
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = write_mllmu.write_config

    def interrupted(root: Path, config: str, *rest: Any, **options: Any) -> None:
        if config == "General_Set":  # the last of all
            raise KeyboardInterrupt
        write(root, config, *rest, **options)

    monkeypatch.setattr(write_mllmu, "write_config", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PEOPLE.write(tmp_path / "ci", "ci")
    assert not list(tmp_path.iterdir())


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^size='huge': .*smol, smol16, ci, default, large, larger, requests, nobody$"):
        PEOPLE.write(tmp_path / "x", "huge")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        PEOPLE.write(tmp_path, "ci")
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(ValueError, match="pool=5"):
        profiles.draw_profiles(random.Random(0), ["1", "2"], [], 5)
