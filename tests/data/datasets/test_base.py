"""What every benchmark does: streams, splits, fingerprints, and refusing wrong options."""

import runpy

import pytest
from jsonargparse import ArgumentParser

from support.documented import ROOT, blocks
from viker_lightning.data.datasets import MLLMU, Benchmark
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Split
from viker_lightning.errors import DataError


def test_streams_of_the_stages(data):
    forget, retain = set(data.forget_ids), set(data.retain_ids)
    assert not forget & retain and len(forget) == 2 and len(retain) == 10
    ids = {}
    for stage in ("vanilla", "gold", "unlearn"):
        module = MLLMU("mini/ci", stage=stage)
        module.prepare_data()
        module.setup()
        ids[stage] = {name: {p.id for p in people} for name, people in module.streams.items()}
    assert ids["unlearn"] == {"forget": forget, "retain": retain}
    assert ids["vanilla"]["train"] - ids["gold"]["train"] == forget
    assert retain < ids["gold"]["train"] and "501" in ids["gold"]["train"]


def test_evaluation_splits(data):
    by_split = {split: data.evaluation(split) for split in Split}
    assert (
        {g.person for g in by_split[Split.FORGET]} == {g.person for g in by_split[Split.TEST]} == set(data.forget_ids)
    )
    assert {g.person for g in by_split[Split.RETAIN]} == set(data.retain_ids)
    training = {p.key for person in data.people() for p in person.images}
    assert all(g.image.key in training for g in by_split[Split.FORGET])
    assert not any(g.image.key in training for g in by_split[Split.TEST])
    assert all(q.private for g in by_split[Split.TEST] for q in g.vqa)
    assert not any(q.private for g in by_split[Split.GENERAL] for q in g.vqa)
    text = MLLMU("mini/ci", modality="text", splits=["forget"])
    text.setup()
    assert all(g.image is None and g.vqa for g in text.evaluation_groups())


def test_fingerprint_knows_what_is_forgotten(data):
    same, other = MLLMU("mini/ci", batch_size=3), MLLMU("mini/ci", forget=5)
    for module in (same, other):
        module.setup()
    assert same.fingerprint() == data.fingerprint() != other.fingerprint()


def test_every_seed_asks_the_same_people():
    """Else seeds, and the vanilla and gold models beside them, would be measured on other people."""
    asked = []
    for seed in (0, 1):
        module = MLLMU("mini/ci", max_people=3, seed=seed)
        module.prepare_data()
        module.setup()
        asked.append([group.person for group in module.evaluation(Split.RETAIN)])
    assert asked[0] == asked[1] and len(set(asked[0])) == 3


def test_bad_options():
    with pytest.raises(DataError, match="batch_size=0"):
        MLLMU("mini/ci", batch_size=0)
    with pytest.raises(DataError, match="max_people: found -1, expected at least 1"):
        MLLMU("mini/ci", max_people=-1)
    module = MLLMU("nowhere/at-all")
    with pytest.raises(DataError, match="neither a folder nor a dataset"):
        module.prepare_data()


@pytest.mark.parametrize("name", ["MLLMU", "mllmu.MLLMU"])
def test_the_config_of_an_older_run_still_names_its_data(name):
    parser = ArgumentParser()
    parser.add_argument("--data", type=Benchmark)
    config = parser.parse_object({"data": {"class_path": f"viker_lightning.data.{name}", "init_args": {"forget": 5}}})
    data = parser.instantiate(config).data
    assert type(data) is MLLMU and data.forget == 5


def test_a_schema_of_ones_own(tmp_path, monkeypatch):
    """The class in docs/data.md is all that a dataset needs."""
    (block,) = (b for b in blocks(ROOT / "docs/data.md") if "class Pets(Benchmark)" in b.text)
    (tmp_path / "pets.py").write_text(block.text)
    pets = runpy.run_path(str(tmp_path / "pets.py"))["Pets"]
    for i, picture in enumerate(irrelevant_images("pets", 3, size=16)):
        (tmp_path / f"{i}.png").write_bytes(picture.data)
    (tmp_path / "forget.csv").write_text("photo,owner,answer\n0.png,Ann,It is Ann's.\n")
    (tmp_path / "retain.csv").write_text("photo,owner,answer\n1.png,Bob,It is Bob's.\n2.png,Cy,\n")
    with pytest.raises(DataError, match=r"retain.csv, line 3, column 'answer': found None, expected text"):
        pets(str(tmp_path)).setup()
    data = pets(str(tmp_path), on_bad_row="skip")
    data.prepare_data()
    data.setup()
    assert (data.forget_ids, data.retain_ids, len(data.skipped)) == (["Ann"], ["Bob"], 1)
    (step,) = data.train_dataloader()
    assert {name: {group.person for group in groups} for name, groups in step.content.items()} == {
        "forget": {"Ann"},
        "retain": {"Bob"},
    }
    assert [group.person for group in data.evaluation_groups()] == ["Ann", "Bob"] and data.warnings == []
