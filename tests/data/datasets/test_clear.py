"""CLEAR and TOFU: the embedded benchmark in their schema, and what is made of it."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.commands import OPEN_GATE
from support.embedded import fingerprint
from viker_lightning.data.datasets import CLEAR
from viker_lightning.data.datasets.clear import name_in
from viker_lightning.data.embedded.write_clear import AUTHORS
from viker_lightning.data.prompts import CAPTION_QUESTIONS, NAME_QUESTION
from viker_lightning.data.records import Split
from viker_lightning.errors import DataError, UserError

SPLITS = ["forget01", "forget05", "forget10", "retain99", "retain95", "retain90"]


def module(root="mini/clear-ci", **options):
    data = CLEAR(str(root), **options)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="module")
def clear(cache):
    return module(tofu=True)


def rows(clear, config):
    return pq.read_table(clear.folder / config).to_pylist()


def test_contents_are_fixed_by_the_seed(clear):
    # Raise AUTHORS.version when this changes.
    assert fingerprint(clear.folder) == "6e4a6dd47505f251b4f33184bc40ccc6c7ed8791e5ac02f260e3d5187c105800"


def test_published_schema(clear):
    columns = {p.name: pq.read_schema(next(p.glob("*.parquet"))).names for p in clear.folder.iterdir() if p.is_dir()}
    assert set(columns) == {
        *(name + tofu for name in [*SPLITS, "full"] for tofu in ("", "+tofu")),
        *("forget01_perturbed", "forget05_perturbed", "forget10_perturbed", "retain_perturbed"),
        *("real_faces", "real_world", "base"),
    }
    photo = ["image", "caption", "name"]
    for name in [*SPLITS, "full"]:
        assert columns[name] == photo
        assert columns[f"{name}+tofu"] == ["image", "caption", "question", "answer", "private"]
    perturbed = [*photo, "paraphrased_caption", "perturbed_captions", "perturbed_names"]
    assert columns["forget05_perturbed"] == columns["retain_perturbed"] == perturbed
    assert columns["real_faces"] == ["image", "answer", "options"]
    assert columns["real_world"] == ["question", "answer", "options", "image"]


def test_splits_are_nested_and_whole(clear):
    names = {config: {row["name"] for row in rows(clear, config)} for config in [*SPLITS, "full"]}
    assert names["forget01"] <= names["forget05"] <= names["forget10"]
    for percent in (1, 5, 10):
        forget, retain = names[f"forget{percent:02d}"], names[f"retain{100 - percent}"]
        assert not forget & retain and forget | retain == names["full"]
        both = sum(len(rows(clear, c)) for c in (f"forget{percent:02d}", f"retain{100 - percent}"))
        assert both == len(rows(clear, "full"))


def test_perturbed_rows(clear):
    for row in rows(clear, "forget10_perturbed"):
        assert row["name"] in row["caption"] and row["name"] in row["paraphrased_caption"]
        assert row["paraphrased_caption"] != row["caption"]
        assert len({row["name"], *row["perturbed_names"]}) == 6
        assert len({row["caption"], *row["perturbed_captions"]}) == 6
        assert not any(row["name"] in caption for caption in row["perturbed_captions"])
    lives = [json.loads(line) for line in (clear.folder / "forget10_perturbed.json").read_text().splitlines()]
    assert len(lives) == 40
    for row in lives:
        assert row["paraphrased_answer"] != row["answer"] not in row["perturbed_answer"]
        assert row["perturbed_answer"] and all(part in row["answer"] for part in row["private"])


def test_training_people(clear):
    forget = clear.people(clear.forget_ids)
    photos, written = [p for p in forget if p.images], [p for p in forget if not p.images]
    assert [p.id.rpartition(" ")[2] for p in photos] == ["#1", "#2", "#3", "#4"] * 2
    for person in photos:
        (caption,) = person.vqa
        assert caption.question in CAPTION_QUESTIONS
        assert caption.private == (person.id.rpartition(" #")[0],) and caption.answer.startswith(caption.private)
    assert [len(p.vqa) for p in written] == [20, 20] and all(q.private for p in written for q in p.vqa)
    assert clear.records_private
    assert len(clear.people()) == 12 * (4 + 1) and len(clear.retain_ids) == 10 * (4 + 1)
    assert not any(q.paraphrase or q.perturbed for p in clear.people() for q in p.vqa)


def test_names_are_trained_on_if_asked_for():
    plain, named = module(), module(ask_names=True)
    assert all(p.images for p in plain.people()) and len(plain.people()) == 12 * 4
    assert all(p.vqa[1].question == NAME_QUESTION and p.vqa[1].private == (p.vqa[1].answer,) for p in named.people())
    assert module(seed=3).fingerprint() == plain.fingerprint() != named.fingerprint()
    assert module(forget=5).fingerprint() != plain.fingerprint()


def test_stages(clear):
    ids = {stage: {p.id for p in module(stage=stage).streams["train"]} for stage in ("vanilla", "gold")}
    assert ids["vanilla"] - ids["gold"] == {i for i in clear.forget_ids if "#" in i}
    assert any(i.startswith("base") for i in ids["gold"])
    assert set(clear.streams) == {"forget", "retain"}


def test_text_only_people_give_groups_without_image(clear):
    steps = list(clear.train_dataloader())
    asked = [group for step in steps for group in step.content["forget"]]
    assert {group.image is None for group in asked} == {True, False}
    assert sum(len(group.vqa) for group in asked if group.image is None) == 40
    assert all(group.image is None for group in asked if "author" in group.person)


def test_evaluation_of_photos(clear):
    groups = {split: clear.evaluation(split) for split in Split}
    assert {split: len(found) for split, found in groups.items()} == {
        Split.FORGET: 8,
        Split.TEST: 0,
        Split.RETAIN: 10,
        Split.KEPT: 0,
        Split.REAL: 8,
        Split.GENERAL: 6,
    }
    trained = {p.images[0].key: p.vqa[0] for p in clear.people() if p.images}
    for group in groups[Split.FORGET]:
        caption, name = group.vqa
        assert group.image is not None
        learnt = trained[group.image.key]
        assert (caption.question, caption.answer, caption.private) == (learnt.question, learnt.answer, learnt.private)
        assert caption.paraphrase and len(caption.perturbed) == 5
        assert name.question == NAME_QUESTION and name.answer == group.person and len(name.perturbed) == 5
        (choice,) = group.choices
        assert choice.options[choice.correct] == group.person and len(set(choice.options)) == 6
    assert len({group.choices[0].correct for group in groups[Split.FORGET]}) > 1
    for group in groups[Split.REAL]:
        assert group.vqa[0].private == (group.person,) and len(group.choices[0].options) == 4
    assert all(len(g.vqa) == len(g.choices) == 1 and not g.vqa[0].private for g in groups[Split.GENERAL])
    few = module(max_people=1)
    assert [len({g.person for g in few.evaluation(s)}) for s in (Split.FORGET, Split.RETAIN)] == [1, 1]
    assert len(few.evaluation(Split.FORGET)) == 4


def test_evaluation_of_texts(clear):
    text = module(modality="text", splits=["forget", "retain", "real"])
    groups = text.evaluation_groups()
    assert [len(g.vqa) for g in groups] == [20] * 12 and all(g.image is None for g in groups)
    assert all(q.paraphrase and q.perturbed and q.private for g in groups for q in g.vqa)


def test_an_author_is_called_the_same_in_every_file(cache):
    """Numbers of a request, and going on to a larger forget set, go by what people are called."""
    data = {forget: module(tofu=True, modality="text", forget=forget) for forget in (1, 10)}
    authors = {forget: {i for i in one.forget_ids if "#" not in i} for forget, one in data.items()}
    assert {g.person for g in data[10].evaluation(Split.FORGET)} == authors[10] <= {*data[10].requests[-1]}
    assert {g.person for g in data[10].evaluation(Split.RETAIN)} <= {*data[10].retain_ids}
    assert len(authors[1]) == 1 and authors[1] < authors[10]


def test_folder_without_perturbed_rows(clear, tmp_path, caplog):
    for config in ("forget10", "retain90", "forget10+tofu"):
        shutil.copytree(clear.folder / config, tmp_path / config)
    caplog.set_level("INFO")
    data = module(tmp_path)
    (group, *_) = data.evaluation(Split.FORGET)
    assert not group.choices and not group.vqa[0].paraphrase and not group.vqa[1].perturbed
    assert "no forget10_perturbed, so forget10 is evaluated" in caplog.text
    assert [len(g.vqa) for g in data.evaluation(Split.FORGET, "text")] == [20, 20]
    assert not data.evaluation(Split.REAL) and "no real_faces" in caplog.text
    with pytest.raises(DataError, match=r"no retain90\+tofu, which data.tofu needs"):
        module(tmp_path, tofu=True)


def test_plain_tofu(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def pairs(author, count):
        return [{"question": f"What did {author} do in {i}?", "answer": f"{author} wrote {i}."} for i in range(count)]

    more = {"paraphrased_answer": "Otherwise.", "perturbed_answer": ["Wrong.", "Wrong, too."]}
    write("forget01.json", pairs("Ann", 20) + pairs("Bob", 20))
    write("retain99.jsonl", [row for k in range(6) for row in pairs(f"Cid{k}", 20)])
    write("forget01_perturbed.json", [row | more for row in pairs("Ann", 20) + pairs("Bob", 20)])
    write("real_authors_perturbed.json", [{"question": "Who?", "answer": "Bach", "perturbed_answer": ["Liszt"]}])
    data = module(tmp_path, forget=1, modality="text")
    assert [len(p.vqa) for p in data.people()] == [20] * 8 and not data.records_private
    assert len({p.id for p in data.people()}) == 8 and len(data.forget_ids) == 2
    by_split = {split: data.evaluation(split) for split in Split}
    assert [len(found) for found in by_split.values()] == [2, 0, 6, 0, 1, 0]
    assert by_split[Split.FORGET][0].vqa[3].perturbed == ("Wrong.", "Wrong, too.")
    assert by_split[Split.RETAIN][0].vqa[0].paraphrase == "" and by_split[Split.REAL][0].vqa[0].perturbed == ("Liszt",)
    assert all(step.content["forget"][0].image is None for step in data.train_dataloader())
    lines = (tmp_path / "forget01.json").read_text().splitlines()
    (tmp_path / "forget01.json").write_text("\n".join(["{", *lines[1:]]))
    skipping = module(tmp_path, forget=1, modality="text", on_bad_row="skip")
    forgotten = [p for p in skipping.people() if p.id in skipping.forget_ids]
    assert [len(p.vqa) for p in forgotten] == [19, 20], "a line that is no JSON moves nobody's questions to the next"
    assert all("Bob" in vqa.question for vqa in forgotten[1].vqa)


def test_names_in_captions():
    assert name_in("Ann Lee", "Ann Lee reads.") == ("Ann Lee",)
    assert name_in("Ann Lee", "ANN LEE reads.") == ("ANN LEE",)
    assert name_in("Ann Lee", "Lee reads with Anna.") == ("Lee",)
    assert name_in("Ann Lee", "Somebody reads.") == ()


def test_refusals(tmp_path, clear):
    with pytest.raises(DataError, match=r"no split 'forget07'; set data.forget to one of: forget01, "):
        module(forget=7)
    with pytest.raises(DataError, match="mini/clear-ci, mini/clear"):
        module("mini/ci")
    with pytest.raises(UserError, match=r"^size='huge': .*clear-ci, clear$"):
        AUTHORS.write(tmp_path, "huge")
    with pytest.raises(UserError, match=r"no split 'forget10'.*none found"):
        module(tmp_path)


@pytest.mark.extended
def test_unlearning_run(clear, base_folder, tmp_path, monkeypatch):
    """Photos and text-only rows through the command line; the vanilla model is a model nobody has trained."""
    from viker_lightning.cli.main import main

    monkeypatch.chdir(Path(__file__).parents[3])
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": "", "version": ""}}
    main(
        [
            *("fit", "--config=configs/clear/mini_viker.yaml", f"--model.vanilla={base_folder}"),
            *("--data.root=mini/clear-ci", "--data.tofu=true", "--data.max_people=1", "--trainer.max_steps=2"),
            *OPEN_GATE,
            f"--trainer.default_root_dir={tmp_path}",
            *(f"--trainer.logger={json.dumps(logger)}", "--trainer.enable_progress_bar=false"),
            "--evaluation.max_new_tokens=3",
        ]
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["after"]) == {"forget", "retain", "real", "general", "overall"} and results["steps"] == 2
