"""Questions from a file, answered before and after unlearning, each once and in order."""

import json
from pathlib import Path

import pytest
import yaml

from support import forked
from support.weights import random_adapter, random_vanilla
from viker_lightning.cli.main import main
from viker_lightning.data.datasets import Questions
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup, Picture
from viker_lightning.models import MLLM, generate, load_adapted, write_merged

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/data/questions.yaml"


@pytest.fixture(scope="module")
def model(tmp_path_factory, base_folder):
    """A vanilla model with random weights of visible size, and an adapter that changes what it says."""
    folder = tmp_path_factory.mktemp("model")
    random_vanilla(base_folder, folder / "vanilla", std=0.1, projector=0.1)
    random_adapter(folder / "vanilla", folder / "adapter", std=0.1)
    return folder


@pytest.fixture
def questions(tmp_path):
    """Nine questions: about three photos by turns, and without any."""
    photos = irrelevant_images("people", 3, size=48)
    for i, photo in enumerate(photos):
        (tmp_path / f"{i}.png").write_bytes(photo.data)
    rows = [
        {"image": f"{i % 3}.png", "question": f"What is number {i}?", "note": ["kept", i]}
        | ({"answer": "x"} if i else {})
        for i in range(6)
    ]
    rows[2:2] = [{"question": "Who is Ada Ölm?", "person": "Ada"}, {"image": "", "question": "And who is Bo?"}]
    rows.append({"image": "0.png", "question": "What is number 0?"})  # asked twice: answered twice
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return file, rows


def options(file, source, run, *more):
    return [
        *("predict", f"--config={CONFIG}", f"--data.root={file}", f"--model.source={source}", "--trainer.logger=false"),
        *(f"--trainer.default_root_dir={run}", "--trainer.enable_progress_bar=false", "--answers.max_new_tokens=6"),
        *more,
    ]


def answers(run):
    return [json.loads(line) for line in (run / "answers.jsonl").read_text("utf-8").splitlines()]


def said(mllm, rows, folder):
    """Answers of a model asked one question at a time."""
    texts = []
    for row in rows:
        photo = Picture((folder / row["image"]).read_bytes(), "") if row.get("image") else None
        (group,) = generate(mllm.eval(), [ImageGroup("", photo, vqa=(VQA(row["question"], ""),))], 6)
        texts += group
    return texts


def test_answers_side_by_side(model, questions, tmp_path, capsys):
    file, rows = questions
    (tmp_path / "run").mkdir()
    (tmp_path / "run/answers.jsonl").write_text("of other questions")
    main(options(file, model / "adapter", tmp_path / "run"))
    assert (tmp_path / "run/answers-1.jsonl").read_text() == "of other questions"
    found = answers(tmp_path / "run")
    assert [{k: v for k, v in row.items() if k not in ("before", "after")} for row in found] == rows
    assert [row["before"] for row in found] == said(MLLM.load(model / "vanilla"), rows, tmp_path)
    assert [row["after"] for row in found] == said(load_adapted(model / "adapter"), rows, tmp_path)
    assert sum(row["before"] != row["after"] for row in found) >= 5
    printed = capsys.readouterr().out
    assert "9 answers" in printed and "before" in printed and "truth" in printed and "Ölm" in printed
    assert yaml.safe_load((tmp_path / "run/config-predict.yaml").read_text())["data"]["class_path"].endswith(
        "Questions"
    )


def test_merged_weights_and_csv(model, questions, tmp_path):
    _, rows = questions
    write_merged(model / "adapter", tmp_path / "merged")
    table = tmp_path / "csv/table.csv"
    table.parent.mkdir()
    for i in range(3):
        (tmp_path / f"csv/{i}.png").write_bytes((tmp_path / f"{i}.png").read_bytes())
    table.write_text("question,image\n" + "\n".join(f"{r['question']},{r.get('image', '')}" for r in rows), "utf-8")
    main(options(table, tmp_path / "merged", tmp_path / "run", "--answers.shown=2"))
    found = answers(tmp_path / "run")
    assert [row["question"] for row in found] == [row["question"] for row in rows]
    assert [row["before"] for row in found] == [None] * 9
    assert [row["after"] for row in found] == said(load_adapted(model / "adapter"), rows, tmp_path)


def test_budgets_change_nothing(model, questions, tmp_path):
    file, _ = questions
    main(options(file, model / "adapter", tmp_path / "one"))
    small = ("--model.engine.max_sequence_tokens=60", "--model.engine.max_tokens=120")
    main(options(file, model / "adapter", tmp_path / "small", *small))
    assert answers(tmp_path / "one") == answers(tmp_path / "small")


def test_two_processes(model, questions, tmp_path):
    file, rows = questions
    main(options(file, model / "adapter", tmp_path / "one"))
    two = options(file, model / "adapter", tmp_path / "two", "--trainer.strategy=ddp", "--trainer.devices=2")
    forked.launch(lambda: main(two), tmp_path / "said")
    assert answers(tmp_path / "two") == answers(tmp_path / "one") and len(answers(tmp_path / "two")) == len(rows)


BAD = [
    ('{"image": "0.png"}', "line 2: field 'question' is missing"),
    ('{"question": " "}', "line 2, column 'question': found ' ', expected text"),
    ('{"question": "Who?", "image": "none.png"}', "line 2, column 'image': "),
    ('{"question": "Who?", "image": "../0.png"}', "leads out of"),
    ('{"question": "Who?", "image": "cut.png"}', "line 2, column 'image': "),
    ('{"question": "Who?", "after": "x"}', "line 2, column 'after': predict writes its answers there"),
    ("Who?", "line 2: not JSON"),
]


@pytest.mark.parametrize(("line", "expected"), BAD)
def test_bad_rows_are_named_or_skipped(questions, tmp_path, line, expected, caplog):
    file, rows = questions
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:-200])
    first, *rest = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([first, line, *rest]), "utf-8")
    with pytest.raises(SystemExit) as stop:
        main(options(file, "nowhere", tmp_path / "run"))
    message = str(stop.value.code)
    assert message.startswith("error: ") and expected in message and "\n" not in message
    data = Questions(str(file), on_bad_row="skip")
    with caplog.at_level("WARNING"):
        data.setup("predict")
    assert [ask.row for ask in data.asks] == rows and len(data.skipped) == 1 and expected in data.skipped[0]
    assert expected in caplog.text


def test_questions_are_only_predicted(model, questions, tmp_path):
    file, _ = questions
    for command, expected in (("validate", "use predict"), ("fit", "use predict")):
        with pytest.raises(SystemExit) as stop:
            main([command, *options(file, model / "adapter", tmp_path / "run")[1:]])
        assert expected in str(stop.value.code)
    with pytest.raises(SystemExit) as stop:
        main(options(file, tmp_path / "nowhere", tmp_path / "run"))
    assert "no model could be loaded" in str(stop.value.code)


@pytest.mark.parametrize("config", ["viker", "vanilla"])
def test_a_model_that_people_must_teach_first_is_named(questions, tmp_path, config):
    file, _ = questions
    arguments = ["predict", f"--config={ROOT / f'configs/mini/{config}.yaml'}", "--data=Questions"]
    arguments += [f"--data.root={file}", "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, *([f"--model.vanilla={ROOT / 'configs/mini/vanilla.yaml'}"] if config == "viker" else [])])
    said = str(stop.value.code)
    assert said.startswith("error: data: ") and "\n" not in said
    assert str(file) in said and "configs/data/questions.yaml" in said and "--model.source" in said


@pytest.mark.extended
def test_an_exported_model_is_validated(model, tmp_path):
    """The numbers of an adapter do not depend on how its model was loaded."""
    data = ["--data=MLLMU", "--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget]"]
    common = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    for name, source in (
        ("exported", ["--model=Exported", f"--model.source={model / 'adapter'}"]),
        ("unlearn", [f"--config={ROOT / 'configs/mini/viker.yaml'}", f"--model.vanilla={model / 'vanilla'}",
                     f"--model.adapter={model / 'adapter'}"]),
    ):  # fmt: skip
        main(["validate", *source, *data, *common, f"--trainer.default_root_dir={tmp_path / name}"])
    one, two = (
        json.loads((tmp_path / f"{name}/results-validate.json").read_text())["validate"]["forget"]
        for name in ("exported", "unlearn")
    )
    assert one == pytest.approx(two, abs=1e-6)
