"""The command line on one's own people and on CLEAR, and the choice of irrelevant images, with tiny models."""

import json
import os
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from support import forked
from support.commands import OPEN_GATE, ROOT, here, run  # noqa: F401 - `here` is used by every test of this file
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.ideal import IdealDistribution
from viker_lightning.metrics import OVERALL
from viker_lightning.models import folder_fingerprint, identify_weights

PEOPLE = {"Ada": "Corlune", "Bo": "Eskmere", "Cy": "Gorsby", "Di": "Kelmoor"}


@pytest.fixture
def people(tmp_path):
    """Writes a file of people who live in towns; the first is to be forgotten."""

    def write(forget=("Ada",), retain=("Bo", "Cy", "Di"), text=()):
        rows = []
        for i, name in enumerate([*forget, *retain]):
            photo = "" if name in text else f"{name}.png"
            if photo:
                (tmp_path / photo).write_bytes(irrelevant_images("people", 12, size=24)[i].data)
            for question in ("Where does {} live?", "What is the town of {}?"):
                asked = question.format(name if not photo else "this person")
                row = {"image": photo, "question": asked, "answer": f"In {PEOPLE[name]}.", "person": name}
                more = {"split": "forget" if name in forget else "retain", "private": [PEOPLE[name]]}
                wrong = [f"In {town}." for town in PEOPLE.values() if town != PEOPLE[name]]
                options = {"perturbed": wrong, "options": [f"In {town}." for town in PEOPLE.values()]}
                rows.append(row | more | options)
        file = tmp_path / "people.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return file

    return write


def refused(*arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    said = str(stop.value.code)
    assert said.startswith("error: ") and "\n" not in said
    return said


def test_what_a_model_knows_of_ones_own_people(people, base_folder, tmp_path, classifier, capsys):
    options = [f"--data.root={people()}", f"--evaluation.gibberish={classifier}"]
    results = run("validate", "data/jsonl", tmp_path / "run", base_folder, *options)
    assert set(results["validate"]) == {"forget", "retain", OVERALL}
    numbers = results["validate"]["forget"]
    wanted = {"keyword_match", "accuracy", "option_probability", "answer_probability", "truth_ratio", "rouge_l_recall"}
    wanted |= {
        "gibberish_clean",
        "sacrebleu",
        "exact_memorization",
        "extraction_strength",
        "distinct_3",
        "coherence",
        "exposure",
        "option_exposure",
        "kl_gold",
    }
    assert wanted - set(numbers) == {"kl_gold"} and numbers["n"] == 2
    assert results["protocol"] == "corrected" and len(results["other_weights"]) == 1
    assert results["other_weights"]["evaluation.gibberish"] == identify_weights(classifier)
    short = run("validate", "data/jsonl", tmp_path / "short", base_folder, *options, "--evaluation.gibberish_tokens=1")
    assert short["validate"]["forget"]["gibberish_clean"] != numbers["gibberish_clean"]
    assert results["knowledge"]["questions"] == 2 and 0 <= results["knowledge"]["known"] <= 1
    assert set(results["people"]["forget"]) == {"Ada"} and set(results["people"]["retain"]) == {"Bo", "Cy", "Di"}
    ada = results["people"]["forget"]["Ada"]
    assert ada["questions"] == 4 and {n: ada[n] for n in ("keyword_match", "accuracy", "answer_probability")} == {
        n: pytest.approx(numbers[n]) for n in ("keyword_match", "accuracy", "answer_probability")
    }
    printed = capsys.readouterr().out
    assert "What the model knows" in printed and "all 3" in printed and "Ada" in printed
    answers = pq.read_table(tmp_path / "run/predictions-validate.parquet").to_pylist()
    assert {row["person"] for row in answers} == set(PEOPLE) and {row["when"] for row in answers} == {"validate"}


def test_bad_rows_are_skipped_and_listed(people, base_folder, tmp_path, capsys):
    """All five in a file that the message names, and in the results, beside what is suspicious about the others."""
    file = people()
    bad = [{"image": "", "question": f"Why {i}?", "answer": "", "person": "Ada"} for i in range(5)]
    twice = {"image": "Ada.png", "question": "Who else?", "answer": "Bo.", "person": "Bo", "split": "retain"}
    file.write_text("\n".join([file.read_text("utf-8"), *map(json.dumps, [*bad, twice])]), "utf-8")
    options = [f"--data.root={file}", "--data.on_bad_row=skip", "--data.max_people=1"]
    results = run("validate", "data/jsonl", tmp_path / "run", base_folder, *options)
    listed = (tmp_path / "run/skipped-validate.txt").read_text("utf-8").splitlines()
    assert results["data"]["skipped"] == listed and len(listed) == 5
    assert [f"{file}, line {i + 9}, column 'answer'" in line for i, line in enumerate(listed)] == [True] * 5
    (said,) = results["data"]["warnings"]
    assert said.startswith("1 photos are both forgotten and retained")


def test_a_special_token_in_a_text_stops_before_training(people, base_folder, tmp_path):
    file = people()
    file.write_text(file.read_text("utf-8").replace("Where does", "Where <image> does", 1), "utf-8")
    said = refused("fit", "data/jsonl", tmp_path / "run", base_folder, f"--data.root={file}", *OPEN_GATE)
    assert "'Where <image> does this person live?' holds '<image>', a special token of this model" in said
    assert not (tmp_path / "run/metrics.csv").exists()


def test_a_folder_that_may_not_be_read_is_not_called_unwritable(people, base_folder, tmp_path, monkeypatch):
    file = people()

    def closed(self):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("viker_lightning.data.datasets.jsonl.Jsonl.prepare_data", closed)
    real = os.access  # root may read everything
    monkeypatch.setattr("os.access", lambda path, *mode, **more: str(path) != str(file) and real(path, *mode, **more))
    said = refused("validate", "data/jsonl", tmp_path / "run", base_folder, f"--data.root={file}")
    assert said == f"error: [Errno 13] Permission denied: '{file}'; make it readable, or give another"


def test_the_vanilla_model_of_ones_own_people_is_made_first(people, tmp_path, monkeypatch):
    monkeypatch.setattr("viker_lightning.jobs.children.subprocess", forked.subprocess)
    config = yaml.safe_load(Path("configs/mini/vanilla.yaml").read_text())
    config["trainer"] |= {"max_steps": 1, "enable_progress_bar": False, "logger": False}
    (tmp_path / "vanilla.yaml").write_text(yaml.safe_dump(config))
    root = f"--data.root={people(retain=['Bo'])}"
    results = run("validate", "data/jsonl", tmp_path / "run", tmp_path / "vanilla.yaml", root)
    assert results["validate"]["forget"]["n"] == 2 and results["knowledge"]["questions"] == 2


@pytest.mark.extended
def test_nobody_is_retained(people, base_folder, tmp_path, caplog):
    file = people(forget=list(PEOPLE), retain=[])
    options = [f"--data.root={file}", *OPEN_GATE, "--gate.follows_image=1"]
    said = refused("fit", "data/jsonl", tmp_path / "no", "nowhere", *options)
    assert "model.method: ViKeR uses retain questions" in said and "retains nobody" in said
    method = ["--model.method.retain_weight=0"]
    with caplog.at_level("INFO"):
        results = run("fit", "data/jsonl", tmp_path / "run", base_folder, *options, *method)
    assert results["knowledge"] == {"known": 0.0, "follows_image": None, "follows_text": None, "questions": 0}
    assert "nobody is retained with a photo" in caplog.text
    assert set(results["after"]) == {"forget"} and results["steps"] == 2
    said = refused("fit", "data/jsonl", tmp_path / "shut", base_folder, *options, *method, "--gate.knowledge=0.5")
    assert "measured known 0.00, questions 0; expected known >= 0.5 (gate.knowledge), follows_image >= " in said


@pytest.mark.extended
@pytest.mark.parametrize("text", [["Ada"], ["Ada", "Bo"]])
def test_text_only_people_are_forgotten(people, base_folder, tmp_path, text, monkeypatch):
    """One of two people to forget, or both, without photo: asked as text, ideal behind an image all the same."""
    computed, compute = [], IdealDistribution._compute
    monkeypatch.setattr(
        IdealDistribution, "_compute", lambda self, questions: computed.append(questions) or compute(self, questions)
    )
    file = people(forget=["Ada", "Bo"], retain=["Cy", "Di"], text=text)
    options = [f"--data.root={file}", *OPEN_GATE, "--data.modality=both"]
    results = run("fit", "data/jsonl", tmp_path / "run", base_folder, *options)
    assert results["knowledge"]["questions"] == 2 * (2 - len(text))
    assert results["key_tokens"]["private_tokens"] > 0
    assert len([part for part in computed if part]) <= 1  # what is prepared is what training asks for
    assert {"forget", "forget_text"} <= set(results["after"]) or len(text) == 2
    where = pq.read_table(tmp_path / "run/predictions.parquet").to_pylist()
    assert {row["modality"] for row in where if row["person"] == "Ada"} == {"text"}


@pytest.mark.extended
@pytest.mark.parametrize("images", ["retain", "forget"])
def test_irrelevant_images_of_the_benchmarks_own_people(base_folder, data, tmp_path, images, monkeypatch):
    seen = []
    module = import_module("viker_lightning.ideal.pictures")
    real = module.irrelevant_images
    monkeypatch.setattr(module, "irrelevant_images", lambda *args: seen.extend(found := real(*args)) or found)
    method = ["--model.method.k=2", f"--model.method.images={images}", "--model.method.retain_weight=0"]
    short = ["--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget]", *OPEN_GATE]
    short += ["--evaluation.before=false", "--evaluation.coherence=false"]
    run("fit", "mini/viker", tmp_path, base_folder, *short, *method)
    ids = data.retain_ids if images == "retain" else data.forget_ids
    theirs = {picture.key for person in data.people(ids) for picture in person.images}
    assert len(seen) == 2 and {picture.key for picture in seen} <= theirs
    assert not (tmp_path / "similarity.json").exists()


@pytest.mark.extended
def test_irrelevant_images_are_kept_away_from_the_forget_set(people, base_folder, tmp_path, clip):
    file = people()
    options = [f"--data.root={file}", *OPEN_GATE, "--evaluation.before=false", f"--model.clip={clip}"]
    run("fit", "data/jsonl", tmp_path / "run", base_folder, *options, "--model.clip_threshold=0.9999")
    report = json.loads((tmp_path / "run/similarity.json").read_text())["irrelevant"]
    assert report["candidates"] >= 5 and sum(report["counts"]) == report["candidates"]
    own = ["--model.clip_threshold=0.9999", "--model.method.images=forget", "--model.method.k=1"]
    said = refused("fit", "data/jsonl", tmp_path / "own", base_folder, *options, *own)
    assert "found 0 images that may be used among 1" in said
    rejected = json.loads((tmp_path / "own/similarity.json").read_text())["irrelevant"]["rejected"]
    assert len(rejected) == 1 and rejected[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert "set both or neither" in refused("fit", "data/jsonl", tmp_path / "half", base_folder, *options)


@pytest.mark.extended
def test_forget_images_that_nearly_repeat(people, base_folder, tmp_path, clip, caplog):
    """Ada is in a retain photo, too, stored anew; the photo of the test split is somebody else's."""
    file = people()
    Image.open(tmp_path / "Ada.png").convert("RGB").save(tmp_path / "Di.png", "WEBP", lossless=True)
    (tmp_path / "other.png").write_bytes(irrelevant_images("scenes", 1, size=24)[0].data)
    row = {"image": "other.png", "question": "Where?", "answer": "In Corlune.", "person": "Ada", "split": "test"}
    file.write_text(file.read_text("utf-8") + "\n" + json.dumps(row | {"private": ["Corlune"]}), "utf-8")
    options = [f"--data.root={file}", f"--audit.clip={clip}", "--audit.threshold=0.9999"]
    run("validate", "data/jsonl", tmp_path / "run", base_folder, *options)
    report = json.loads((tmp_path / "run/similarity.json").read_text())
    assert set(report) == {"retain", "test"}
    assert [Path(pair["nearest"]).name for pair in report["retain"]["pairs"]] == ["Di.png"]
    assert report["retain"]["pairs"][0]["similarity"] == pytest.approx(1, abs=1e-4) and not report["test"]["pairs"]
    assert all(sum(part["counts"]) == part["candidates"] == 1 for part in report.values())
    assert "1 of 1 forget images nearly repeat in retain" in caplog.text and "in test" not in caplog.text
    # A training run keeps what irrelevant images were like beside its own audit, and nothing of earlier runs.
    irrelevant = [f"--model.clip={clip}", "--model.clip_threshold=1", *OPEN_GATE, "--evaluation.before=false"]
    run("fit", "data/jsonl", tmp_path / "run", base_folder, *options, *irrelevant)
    assert set(json.loads((tmp_path / "run/similarity.json").read_text())) == {"irrelevant", "retain", "test"}
    looked = {"source": str(clip), "commit": None, "fingerprint": folder_fingerprint(clip)}
    recorded = json.loads((tmp_path / "run/provenance.json").read_text())["other_weights"]
    assert recorded == {"audit.clip": looked, "model.clip": looked}
    run("fit", "data/jsonl", tmp_path / "run", base_folder, options[0], *OPEN_GATE, "--evaluation.before=false")
    assert not (tmp_path / "run/similarity.json").exists()
    assert "audit: clip=x" in refused("validate", "data/jsonl", tmp_path, base_folder, options[0], "--audit.clip=x")


CLEAR_RUN = ["--data.root=mini/clear-ci", "--data.max_people=1", *OPEN_GATE]


def test_clear_vanilla_gold_and_viker(base_folder, tmp_path):
    for name in ("mini_vanilla", "mini_gold"):
        results = run("fit", f"clear/{name}", tmp_path / name, None, *CLEAR_RUN)
        assert set(results["after"]) == {"forget", "retain", "real", "general", OVERALL} and results["steps"] == 2
        assert (tmp_path / name / "model/model.safetensors").is_file()
        assert "coherence" not in results["after"]["forget"]  # there is no model before unlearning to ask
    gold = f"--evaluation.gold={tmp_path / 'mini_gold'}"
    results = run("fit", "clear/mini_viker", tmp_path / "viker", tmp_path / "mini_vanilla", *CLEAR_RUN, gold)
    assert results["other_weights"] == {"evaluation.gold": identify_weights(tmp_path / "mini_gold")}
    assert results["other_weights"]["evaluation.gold"]["fingerprint"] == folder_fingerprint(
        tmp_path / "mini_gold/model"
    )
    forget = results["after"]["forget"]
    attacks = {"mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference"}
    wanted = attacks | {"truth_ratio", "relative_probability", "kl_gold", "js_similarity", "exposure"}
    assert wanted | {"forget_quality_p", "forget_quality_log10_p", "forget_quality_ks", "coherence"} <= set(forget)
    assert 0 <= results["after"][OVERALL]["model_utility"] < 1
    assert set(results["distance_to_gold"]["forget"]) <= attacks
    assert (tmp_path / "viker/adapter/adapter_model.safetensors").is_file()


def test_a_given_model_judges_coherence(people, base_folder, tmp_path):
    """Where the model before training is gone, another one can judge, of another tokenizer, too."""
    options = [f"--data.root={people()}", "--data.class_path=Jsonl", f"--model.base={base_folder}"]
    results = run("fit", "mini/vanilla", tmp_path / "run", None, *options, f"--evaluation.judge={base_folder}")
    assert 0 <= results["after"]["forget"]["coherence"] <= 1
    assert results["other_weights"] == {"evaluation.judge": identify_weights(base_folder)}
    recorded = json.loads((tmp_path / "run/provenance.json").read_text())["other_weights"]
    assert recorded == results["other_weights"] and recorded["evaluation.judge"]["fingerprint"]
    said = refused("fit", "mini/vanilla", tmp_path / "no", None, *options, f"--evaluation.judge={tmp_path}")
    assert f"{tmp_path}: no model could be loaded" in said
    said = refused("fit", "mini/vanilla", tmp_path / "no", None, *options, "--evaluation.judge=no.yaml")
    assert "evaluation.judge: 'no.yaml' does not exist" in said


def test_clear_with_the_papers_settings(base_folder, tmp_path):
    full = ["--model.dtype=float32", "--data.forget=10", "--data.splits=[forget]", "--evaluation.coherence=false"]
    results = run("fit", "clear/viker", tmp_path, base_folder, *CLEAR_RUN, *full)
    assert results["steps"] == 2 and results["before"]["forget"]["n"] == results["after"]["forget"]["n"]


@pytest.mark.extended
@pytest.mark.parametrize(("config", "root"), [("mini/viker", "mini/ci"), ("clear/mini_viker", "mini/clear-ci")])
def test_published_protocol(base_folder, tmp_path, config, root):
    options = [f"--data.root={root}", "--data.max_people=1", "--data.protocol=published"]
    results = run("validate", config, tmp_path, base_folder, *options)
    assert results["protocol"] == "published" and "option_probability" not in results["validate"]["forget"]
    assert ("clear_retain" in results["validate"][OVERALL]) == (config != "mini/viker")


def test_wrong_evaluation_options(people, base_folder, tmp_path):
    root = f"--data.root={people()}"
    said = refused("validate", "data/jsonl", tmp_path, base_folder, root, "--data.protocol=published")
    assert said.startswith("error: data.protocol: found 'published', but Jsonl has only 'corrected'")
    gold = "--evaluation.gold_predictions=nowhere.parquet"
    said = refused("validate", "data/jsonl", tmp_path, base_folder, root, gold)
    assert "evaluation.gold_predictions: 'nowhere.parquet' holds no predictions" in said
    said = refused("validate", "data/jsonl", tmp_path, base_folder, root, f"--evaluation.gibberish={tmp_path}")
    assert f"gibberish classifier {tmp_path}: cannot be loaded" in said
