"""The tasks that `export --tasks` writes: their schema, their functions without this package, and the same scores."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from viker_lightning.attacks.attempt import hit
from viker_lightning.attacks.kinds.ask import AskOtherwise
from viker_lightning.attacks.kinds.sample import Sample, leak_at_k
from viker_lightning.attacks.kinds.show import ShowOtherwise
from viker_lightning.attacks.lmms_functions import any_hit, process_results
from viker_lightning.attacks.lmms_tasks import write_tasks
from viker_lightning.attacks.material import gather, private_questions
from viker_lightning.cli.export import main as export
from viker_lightning.data.records import Picture
from viker_lightning.metrics import keyword_match, keyword_match_whole
from viker_lightning.storage.runs.write import read_predictions

SCORED = {"keyword_match": keyword_match, "keyword_match_whole": keyword_match_whole, "hit": hit}
ALONE = """
import json, sys
sys.modules["viker_lightning"] = None  # whoever imports it fails
sys.path.insert(0, sys.argv[1])
import utils
asked = json.load(sys.stdin)
scores = [utils.process_results(doc, [answer]) for doc, answer in asked]
print(json.dumps([scores, utils.any_hit([one["any_hit"] for one in scores]), utils.doc_to_visual(asked[0][0])[0].size]))
"""


class Tag(str):
    """What follows ``!function``."""


class Loader(yaml.SafeLoader):
    """Reads ``!function`` as lmms-eval does, without the import."""


Loader.add_constructor("!function", lambda loader, node: Tag(loader.construct_scalar(node)))


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    written = tmp_path_factory.mktemp("tasks") / "lmms_eval"
    write_tasks(data, written, max_new_tokens=7)
    return written


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"viker_{name}.jsonl").read_text("utf-8").splitlines()]


def tasks(folder):
    return {file.stem: yaml.load(file.read_text("utf-8"), Loader) for file in folder.glob("*.yaml")}


def alone(folder, asked):
    """Scores of answers by the functions of the folder, in a process that cannot import this package."""
    command = [sys.executable, "-c", ALONE, str(folder)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_task_is_what_lmms_eval_reads(folder):
    """Keys of TaskConfig in lmms_eval/api/task.py 0.7.3; a metric is one that process_results gives."""
    known = "task tag dataset_path dataset_kwargs test_split output_type doc_to_visual doc_to_text doc_to_target"
    known += " process_results generation_kwargs metric_list metadata"
    found = tasks(folder)
    splits = {f"viker_{split}" for split in ("forget", "test", "retain", "real")}
    attacks = {
        f"viker_{attack}_{whose}"
        for attack in ("other_words", "other_photos", "samples")
        for whose in ("forget", "retain")
    }
    assert found.keys() == splits | attacks
    for name, task in found.items():
        assert [*task] == known.split() and task["task"] == name
        assert task["tag"] == ["viker", "viker_splits" if name in splits else "viker_attacks"]
        assert (folder / task["dataset_kwargs"]["data_files"][task["test_split"]]).is_file()
        first = rows(folder, name.removeprefix("viker_"))[0]
        assert {task["doc_to_text"], task["doc_to_target"]} < first.keys()
        given = process_results(first, [""])
        for one in task["metric_list"]:
            assert one["metric"] in given
            assert one["higher_is_better"] == (not name.endswith(("forget", "test")))
            assert one["aggregation"] == ("utils.any_hit" if one["metric"] == "any_hit" else "mean")
        assert task["generation_kwargs"]["do_sample"] == ("samples" in name)
        assert (task["generation_kwargs"]["temperature"] > 0) == ("samples" in name)
        assert task["generation_kwargs"]["max_new_tokens"] == (7 if name in splits else 50)


def test_rows_are_the_questions_of_the_splits(folder, data):
    for split in data.splits:
        groups = private_questions(data.evaluation(split))
        wanted = [(q.question, q.answer, [*q.private], g.image.key) for g in groups for q in g.vqa]
        if not wanted:
            assert not (folder / f"viker_{split}.yaml").exists()
            continue
        found = rows(folder, split)
        keys = [Picture.of(folder / row["photo"]).key for row in found]
        assert [(r["question"], r["answer"], r["private"], k) for r, k in zip(found, keys, strict=True)] == wanted


def test_functions_alone_score_as_we_do(folder, data):
    """True answers, half of a place, another letter case, a part of a word, what is empty."""
    asked = []
    for row in rows(folder, "forget") + rows(folder, "real"):
        span = row["private"][0]
        answers = (row["answer"], span.split(",")[0].upper(), f"{span}x", f"x {span}.", "", "I don't know who this is.")
        asked += [(row, answer) for answer in answers]
    scores, together, size = alone(folder, asked)
    for (row, answer), found in zip(asked, scores, strict=True):
        wanted = {name: score(answer, row["private"]) for name, score in SCORED.items()}
        assert found == wanted | {"any_hit": [row["about"], wanted["hit"]]}
    assert {found["keyword_match"] for found in scores} > {0.0, 0.5, 1.0}
    assert together == 1.0
    assert size == list(data.evaluation("forget")[0].image.open().size)


def test_attacks_ask_as_ours_do(folder, data):
    material = gather(data)
    for name, ways in (
        ("other_words", AskOtherwise().other_words(material)),
        ("other_photos", ShowOtherwise().other_photos(material)),
    ):
        for whose, groups in (("forget", material.forget), ("retain", material.retain)):
            put = [way(group, vqa) for way in ways.values() for group in groups for vqa in group.vqa]
            wanted = [(q.question, [*q.private], picture.key) for picture, q in filter(None, put)]
            found = rows(folder, f"{name}_{whose}")
            keys = [Picture.of(folder / row["photo"]).key for row in found]
            assert [(r["question"], r["private"], k) for r, k in zip(found, keys, strict=True)] == wanted


def test_means_over_samples_are_leak_at_1_and_at_n(folder):
    n, leaked = Sample.quick().n, (0, 1, 7, 20)
    drawn = rows(folder, "samples_forget")
    assert len(drawn) == n * len({row["about"] for row in drawn})
    found = [(about, float(i < c)) for about, c in zip("abcd", leaked, strict=True) for i in range(n)]
    at_1, at_n = ([leak_at_k(n, c, k) for c in leaked] for k in (1, n))
    assert sum(hits for _, hits in found) / len(found) == pytest.approx(sum(at_1) / 4)
    assert any_hit(found) == sum(at_n) / 4 == 0.75


def test_a_photo_is_written_as_it_is_seen(folder, data, tmp_path):
    """One that the camera has turned is stored upright, since others may not turn it."""
    from viker_lightning.attacks.lmms_tasks import _photo

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.radial_gradient("L").resize((30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    turned = Picture.of(tmp_path / "turned.jpg")
    (tmp_path / "photos").mkdir()
    with Image.open(tmp_path / _photo(tmp_path, turned)) as stored:
        assert stored.size == (20, 30) and stored.convert("RGB").tobytes() == turned.open().tobytes()
    assert _photo(tmp_path, None) == ""


def test_export_of_a_run_has_the_numbers_of_its_results(finished, tmp_path, capsys):
    """Its own answers, scored by the functions it writes, give the numbers in its results.json."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "provenance.json", "results.json", "predictions.parquet"):
        (run / name).write_bytes((finished / name).read_bytes())
    export([str(run), "--tasks", "lmms-eval"])
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "lmms_eval")
    after = json.loads((run / "results.json").read_text())["after"]
    said = [p for when, p in read_predictions(run / "predictions.parquet") if when == "after" and p.private]
    for split in ("forget", "retain"):
        answers = {(p.question, p.image): p.answer for p in said if p.split == split}
        found = rows(run / "lmms_eval", split)
        keys = [Picture.of(run / "lmms_eval" / row["photo"]).key for row in found]
        asked = [(row, answers[row["question"], key]) for row, key in zip(found, keys, strict=True)]
        scores, _, _ = alone(run / "lmms_eval", asked)
        for name in ("keyword_match", "keyword_match_whole"):
            assert sum(one[name] for one in scores) / len(scores) == pytest.approx(after[split][name])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--push=somebody/forgetful",), "--push: found with --tasks, which are rows and photos of people"),
        (("--language_model",), "--tasks: found with --language_model"),
    ],
)
def test_options_that_do_not_go_together(options, said, finished):
    with pytest.raises(SystemExit, match=f"^error: {said}") as stop:
        export([str(finished), "--tasks=lmms-eval", *options])
    assert "\n" not in stop.value.code and not (finished / "lmms_eval").exists()


def test_lmms_eval_loads_the_tasks(folder, tmp_path):
    pytest.importorskip("lmms_eval", reason="pip install lmms_eval, into an environment of its own")
    code = (
        "import sys; from lmms_eval.tasks import TaskManager, get_task_dict\n"
        "manager = TaskManager('ERROR', include_path=sys.argv[1], include_defaults=False)\n"
        "for name, task in get_task_dict(['viker'], manager).items():\n"
        "    doc = task.test_docs()[0]\n"
        "    print(task.process_results(doc, [doc['answer']])['keyword_match'], len(task.doc_to_visual(doc)))\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-10:] == ["1.0 1"] * 10
