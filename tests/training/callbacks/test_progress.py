"""What is shown: a bar in a terminal, a line now and then in a pipe, nothing in CI; tables everywhere."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from support.commands import OPEN_GATE
from viker_lightning.cli.main import main
from viker_lightning.reporting import before_after_table, headline
from viker_lightning.terminal import progress
from viker_lightning.training.callbacks import Signals, TerminalProgress
from viker_lightning.training.callbacks.terminal_progress import training_note
from viker_lightning.training.state import StepState

ROOT = Path(__file__).parents[3]
SHORT = ["--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget,retain]", "--trainer.max_steps=3"]
SHORT += [*OPEN_GATE, "--trainer.logger=false", "--report.photos=false"]
SHORT += ["--evaluation.max_new_tokens=5"]  # untrained models would never stop talking
SUMMARY = {
    "forget": {"keyword_match": 0.94, "rouge_l": 0.8, "coherence": 0.7},
    "test": {"coherence": 0.96, "accuracy": 1.0},
    "retain": {"rouge_l": 0.5},
}


def terminal(width=110, **more):
    return Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False, **more)


def plain(table):
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


@pytest.fixture
def watched(monkeypatch):
    """Somebody sits at a terminal."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


def test_quiet_where_nobody_watches(watched, monkeypatch):
    assert not progress.quiet()
    for value, hushed in (("true", True), ("1", True), ("false", False), ("", False)):
        monkeypatch.setenv("CI", value)
        assert progress.quiet() is hushed
        assert progress.silent() is hushed
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert progress.quiet() and progress.silent()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: False)
    assert progress.quiet() and not progress.silent()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that go by when a test says so, in a pipe."""
    monkeypatch.delenv("CI", raising=False)
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_pipe_gets_a_line_every_few_seconds(clock, capsys):
    bar = progress.Bar("training", 450, "questions")
    bar.start()
    for _ in range(444):
        clock[0] += 0.25
        bar.advance(1, 8)
    bar.stop()
    bar.stop()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training 20/450, 1:48 left" and lines[1] == "training 40/450, 1:42 left"
    assert lines[-1] == "training 444/450, 0:02 left" and len(lines) == 23
    assert all(progress.LINE.match(line) for line in lines)


def test_what_is_made_ready_first_is_not_expected_of_every_step(clock, capsys):
    with progress.Bar("training", 40) as bar:
        for seconds in (300, *(10,) * 4):
            clock[0] += seconds
            bar.advance()
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "training 1/40", "nobody knows yet"
    assert rest == [
        f"training {step}/40, {(400 - 10 * step) // 60}:{(400 - 10 * step) % 60:02} left" for step in (2, 3, 4, 5)
    ]


def test_a_run_that_goes_on_reckons_with_its_own_steps(clock, capsys):
    with progress.Bar("evaluation", 100, done=40) as bar:
        for _ in range(3):
            clock[0] += 10
            bar.advance(5)
    assert capsys.readouterr().out.splitlines() == [
        *("evaluation 45/100", "evaluation 50/100, 1:40 left", "evaluation 55/100, 1:30 left")
    ]


def test_what_is_over_at_once_leaves_no_line(clock, capsys):
    with progress.Bar("evaluation before", 3) as bar:
        clock[0] += 4.9
        bar.advance(3)
    assert capsys.readouterr().out == ""
    with progress.Bar("training", None, done=7) as bar:  # nobody knows how long
        clock[0] += 5
        bar.advance()
    assert capsys.readouterr().out == "training 8/?\n"


def test_lines_of_days_are_few(clock):
    pace, due = progress.Pace(), []
    for _ in range(86_400):
        clock[0] += 1
        due += [clock[0]] * pace.due()
    assert due[:3] == [5, 10, 15] and due[-1] - due[-2] > 2000 and len(due) < 300


def test_a_log_says_how_far_its_run_is(tmp_path):
    log = tmp_path / "log.txt"
    assert progress.last_stage(log) == ""
    log.write_text("There is no vanilla model\ntraining 3/7, 0:41 left\nevaluation after 1/2\nscore 3/4 of them\n")
    assert progress.last_stage(log) == "evaluation after 1/2"
    assert [progress.clock(seconds) for seconds in (0, 61.2, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_a_bar_counts_steps_and_things_a_second():
    clock = [0.0]
    console = terminal(get_time=lambda: clock[0])
    with progress.Bar("training", 10, "questions", done=2, console=console) as bar:
        bar.say("forget 0.12")
        for _ in range(3):
            clock[0] += 2  # seconds
            bar.advance(1, 8)
    shown = console.file.getvalue()
    assert "training" in shown and "5/10" in shown and "left" in shown and "forget 0.12" in shown
    assert "4.0 questions/s" in shown


def test_bars_within_bars():
    console = terminal()
    with progress.Bar("training", 2, console=console) as outer:
        outer.advance()
        with progress.Bar("evaluation", 2, console=console) as inner:
            inner.advance()
            outer._display.refresh()
    shown = console.file.getvalue()
    assert "training" in shown and "evaluation" in shown


def test_hidden_bars_say_nothing(capsys):
    assert list(progress.track([1, 2], "counting", 2, "numbers")) == [1, 2]
    with progress.Bar("hidden", 3, shown=False) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_headline_takes_the_score_that_tells_most():
    assert headline(SUMMARY) == {
        "forget": "forget leaked ★ 0.94",
        "retain": "retain ROUGE-L ↑ 0.50",
        "coherence": "coherence ↑ 0.96",
    }
    assert headline({"forget": {}}) == {}


def test_what_stands_in_while_training_is_named():
    note = training_note({"forget": -2.0}, "before", SUMMARY)
    assert note == "forget ★ 0.14 (token probability, this step) · retain ROUGE-L ↑ 0.50 · coherence ↑ 0.96 (before)"
    assert training_note({}, "epoch 1", SUMMARY).endswith("(epoch 1)") and training_note({}, "", {}) == ""


def test_a_step_without_retain_questions_shows_no_older_ones():
    """Where the streams take turns, Lightning still knows what an earlier step logged."""
    console = terminal()
    trainer = SimpleNamespace(estimated_stepping_batches=3, global_step=1, world_size=1, callbacks=[])
    trainer.callback_metrics = {"train/forget_ce": 2.0, "train/retain_ce": 1.0}
    bar = TerminalProgress(console)
    bar.on_train_start(trainer, None)
    bar.on_train_batch_end(trainer, SimpleNamespace(step=StepState(4, logged={"forget_ce": 2.0})), None, None, 1)
    bar.on_train_end(trainer, None)
    shown = console.file.getvalue()
    assert "forget ★ 0.14 (token probability, this step)" in shown and "retain" not in shown


def test_table_of_a_run_fits_a_narrow_terminal():
    full = {"keyword_match": 0.5, "rouge_l": 0.5, "accuracy": 1.0, "coherence": 0.9, "repetition": 0.0, "kl_gold": 12.5}
    after = dict.fromkeys(("forget", "test", "retain", "real", "general"), full)
    text = plain(before_after_table(SUMMARY, after))
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "0.94 → 0.50" in rows["forget"] and "0.96 → 0.90" in rows["test"] and max(map(len, text.splitlines())) <= 80
    assert "→" not in rows["general"] and "KL to gold ↓" in text and "…" not in text
    assert "→" not in plain(before_after_table({}, after))


@pytest.fixture
def fit(base_folder, tmp_path, monkeypatch):
    """Unlearns from a model nobody has trained."""
    monkeypatch.chdir(ROOT)

    def run(*options):
        folder = f"--trainer.default_root_dir={tmp_path}"
        main(["fit", "--config=configs/mini/npo.yaml", f"--model.vanilla={base_folder}", folder, *SHORT, *options])
        return json.loads((tmp_path / "results.json").read_text())

    return run


def test_a_run_shows_where_it_is(fit, watched, monkeypatch):
    console = terminal()
    monkeypatch.setattr(progress, "shared_console", lambda: console)
    monkeypatch.setattr("viker_lightning.training.callbacks.terminal_progress.LOOKS", 0.0)
    fit("--evaluation.every_n_epochs=1", "--trainer.limit_train_batches=1")
    shown = console.file.getvalue()
    for said in ("evaluation before", "training", "3/3", "evaluation epoch 1", "evaluation after", "questions/s"):
        assert said in shown, said
    assert "(token probability, this step)" in shown and "(epoch 2)" in shown


def test_a_run_in_a_pipe_says_where_it_is(fit, monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    fit()
    lines = [line for line in capsys.readouterr().out.splitlines() if progress.LINE.match(line)]
    assert [line for line in lines if line.startswith("training")][-1] == "training 3/3"
    assert {line.split()[1] for line in lines if line.startswith("evaluation")} == {"before", "after"}


def test_a_run_nobody_watches_prints_one_table(fit, capsys, monkeypatch):
    monkeypatch.setenv("CI", "true")
    results = fit()
    said = capsys.readouterr()
    value = results["after"]["forget"]["keyword_match"]
    assert "before → after" in said.out and f"→ {value:.2f}" in said.out
    assert not any(sign in said.out + said.err for sign in ("questions/s", "Loading weights", "\x1b"))
    assert not any(progress.LINE.match(line) for line in said.out.splitlines())


def test_which_bar_a_run_has(watched, monkeypatch):
    """Ours, unless another is chosen, it is turned off, or nobody watches."""
    monkeypatch.chdir(ROOT)
    seen = []
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda trainer, *args, **kwargs: seen.append(trainer))
    for options in (
        [],
        ["--trainer.enable_progress_bar=false"],
        ['--trainer.callbacks={"class_path": "TQDMProgressBar"}'],
    ):
        main(["fit", "--config=configs/mini/npo.yaml", "--data.root=mini/ci", "--trainer.logger=false", *options])
    monkeypatch.setenv("CI", "true")
    main(["fit", "--config=configs/mini/npo.yaml", "--data.root=mini/ci", "--trainer.logger=false"])
    assert [type(trainer.progress_bar_callback).__name__ for trainer in seen] == [
        *("TerminalProgress", "NoneType", "TQDMProgressBar", "NoneType")
    ]
    assert isinstance(seen[0].callbacks[1], TerminalProgress), "it shows the evaluation before training, too"
    assert all(isinstance(trainer.callbacks[0], Signals) for trainer in seen), "a signal may come during it"
