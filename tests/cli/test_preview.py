"""``preview``: the tokens of the first steps, before any training, and nothing left behind."""

import math
import re
from types import SimpleNamespace

import pytest
import yaml

from support.commands import OPEN_GATE, csv_only, here  # noqa: F401 - `here` is used by every test of this file
from support.marks import quick
from viker_lightning.cli import preview
from viker_lightning.cli.main import main
from viker_lightning.data.records import VQA, ImageGroup
from viker_lightning.training import Unlearn, unlearn

SMALL = ["--data.root=mini/ci", "--data.batch_size=4", "--data.questions_per_image=4", "--trainer.accelerator=cpu"]


def show(config, vanilla, folder, *options):
    """Runs the command on a model nobody has trained."""
    given = [f"--config=configs/mini/{config}.yaml", f"--model.vanilla={vanilla}", *csv_only(folder), *SMALL]
    main(["preview", *given, *options])


def trained_on(monkeypatch, config, vanilla, folder, *options):
    """The labels of every question of the first step of fit, in their order."""
    found, plain = [], unlearn.answers_of

    def spied(mllm, batch, total, layers=()):
        found.extend(batch.labels[batch.question == i].tolist() for i in range(batch.n_questions))
        return plain(mllm, batch, total, layers)

    given = [f"--config=configs/mini/{config}.yaml", f"--model.vanilla={vanilla}", *csv_only(folder), *SMALL, *options]
    quick = [
        "--trainer.max_steps=1",
        "--evaluation.before=false",
        "--data.max_people=1",
        "--data.splits=[forget,retain]",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(unlearn, "answers_of", spied)
        main(["fit", *given, *quick, *OPEN_GATE, "--evaluation.max_new_tokens=3"])
    return found


def spy(monkeypatch):
    """Notes the questions that preview reads off its batches."""
    found = []

    def noting(batch, entropy, plain=preview.questions_of):
        rows = plain(batch, entropy)
        found.extend(question for row in rows for question in row)
        return rows

    monkeypatch.setattr(preview, "questions_of", noting)
    return found


@pytest.mark.parametrize("config", quick(["viker", "idk", "stranger"], ["viker"]))
def test_what_is_shown_is_what_fit_trains_on(config, base_folder, tmp_path, monkeypatch, capsys):
    """Streams of the data, other answers, and strangers."""
    shown = spy(monkeypatch)
    show(config, base_folder, tmp_path / "shown", "--questions=4")
    assert not (tmp_path / "shown").exists(), "nothing is written where the run would be"
    out = capsys.readouterr().out
    streams = {"idk": "alternative", "stranger": "strangers"}
    assert "\x1b" not in out and f"\n{streams.get(config, 'forget')} 1: " in out
    assert ("\nretain 1: " in out) == (config != "stranger"), "it asks no retain questions"
    trained = trained_on(monkeypatch, config, base_folder, tmp_path / "run")
    assert len(shown) >= 8 and [question.labels for question in shown] == trained


def test_what_is_said(base_folder, tmp_path, monkeypatch, capsys):
    """Marks of labels, private spans and entropies, ids on demand, and the same words with colour."""
    shown = spy(monkeypatch)
    show("viker", base_folder, tmp_path, "--questions=2")
    plain = capsys.readouterr().out
    assert re.search(r"forget: \d+ people, \d+ photos, \d+ questions\n", plain)
    assert re.search(r"22 steps \([\d.]+ epochs of \d+\); a step asks up to 4 questions of a stream", plain)
    assert re.search(r"\nforget 1: \d+; .*train-.*\.parquet, row \d+.*, 64 x 64 pixels\n", plain)
    assert re.search(r"begins with \(\d+ tokens\): USER: <image> x 16 \n", plain)
    forget, retain = shown[:2], shown[2:]
    assert len(retain) == 2 and all(len(question.entropy) == len(question.labels) for question in forget)
    assert all(not question.entropy for question in retain), "the method asks no ideal distribution of them"
    trains = re.findall(r"^  \d trains on \((\d+), (\d+) private\): (.*)$", plain, re.M)
    assert [(int(n), int(p)) for n, p, _ in trains] == [(len(q.labels), sum(q.private)) for q in shown]
    for question, (*_, said) in zip(shown, trains, strict=True):
        parts = said.split("|")
        assert [part.startswith("[") for part in parts] == question.private and any(question.private)
        assert [float(part.rstrip("*").split()[-1]) for part in parts if question.entropy] == pytest.approx(
            question.entropy, abs=0.006
        )
    again = show("viker", base_folder, tmp_path, "--questions=2", "--ids=true")
    assert again is None and f"#{shown[0].labels[0]}" in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")
    show("viker", base_folder, tmp_path, "--questions=2")
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured and re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


@pytest.mark.extended
def test_no_vanilla_model_is_made(base_folder, tmp_path, monkeypatch, capsys):
    """What it begins with has the same tokens."""
    config = {"model": {"class_path": "Finetune", "init_args": {"base": str(base_folder)}}}
    (tmp_path / "vanilla.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("subprocess.run", lambda *given, **more: pytest.fail("something is trained"))
    shown = spy(monkeypatch)
    for method in ("viker", "stranger"):
        show(method, tmp_path / "vanilla.yaml", tmp_path / "run")
        out = capsys.readouterr().out
        assert f"the vanilla model of {tmp_path}/vanilla.yaml is not there yet, fit makes it first" in out
    assert shown and not any(question.entropy for question in shown)
    (tmp_path / "vanilla.yaml").write_text("data: {class_path: MLLMU}\n")
    with pytest.raises(SystemExit, match="found no model, expected the YAML of a fine-tuning run"):
        show("viker", tmp_path / "vanilla.yaml", tmp_path / "run")


def test_fine_tuning_and_nonsense(base_folder, tmp_path, capsys):
    given = ["--config=configs/mini/vanilla.yaml", *csv_only(tmp_path / "run"), *SMALL, f"--model.base={base_folder}"]
    main(["preview", *given])
    out = capsys.readouterr().out
    assert "Finetune on mini/ci (MLLMU, vanilla, corrected)" in out and "train 1: " in out and "450 steps" in out
    main(["preview", *given, "--trainer.max_steps=-1", "--trainer.max_epochs=-1", "--model.schedule=constant"])
    assert "no end: neither trainer.max_steps nor max_epochs is set" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"preview\.questions: found 0, expected at least 1"):
        main(["preview", *given, "--questions=0"])


def test_few_questions_in_their_groups():
    groups = [ImageGroup(name, None, vqa=tuple(VQA(f"{name}{i}", "x") for i in range(3))) for name in "ab"]
    assert [[one.question for one in group.vqa] for group in preview.first(groups, 4)] == [["a0", "a1", "a2"], ["b0"]]
    assert preview.first(groups, 3) == groups[:1]


def test_how_long_a_run_would_be():
    data = SimpleNamespace(train_dataloader=lambda: range(6), batch_size=8, batches_per_step=2, questions_per_image=4)
    trainer = SimpleNamespace(estimated_stepping_batches=9, limit_train_batches=1.0, world_size=2)
    said = preview.duration(trainer, SimpleNamespace(data=data))
    assert said == (
        "9 steps (1.5 epochs of 6); a step asks up to 16 questions of a stream, 4 about a photo, on each of 2 processes"
    )
    trainer.estimated_stepping_batches = math.inf
    assert preview.duration(trainer, SimpleNamespace(data=data)).startswith("no end: neither trainer.max_steps")
    edits = Unlearn.__new__(Unlearn)
    object.__setattr__(edits, "method", SimpleNamespace(takes_steps=False))
    assert preview.duration(trainer, edits) == "no steps: SimpleNamespace edits the weights, once"


@pytest.mark.parametrize(
    ("stream", "asked", "said"),
    [
        ("forget", ["forget", "retain"], ""),
        ("forget", ["alternative"], "; asked as alternative"),
        ("forget", ["forget", "strangers"], "; asked as they are, and as strangers"),
        ("retain", ["forget"], "; this method does not ask them"),
    ],
)
def test_what_a_method_does_with_a_stream(stream, asked, said):
    assert preview.use_of(stream, asked, ["forget", "retain"]) == said


@pytest.mark.parametrize(("text", "shown"), [("a\nb", "a\\nb"), ("é", "é"), ("\u200b", "\\u200b"), (" x", " x")])
def test_every_sign_is_seen(text, shown):
    assert preview.visible(text) == shown
