"""Where a score has no value, the reason stands below the table, once."""

import json
import math

import pytest

from support.commands import ROOT
from support.grids import finish, small_grid, tabulate
from support.run_folders import write_run
from viker_lightning.evaluation import summarise
from viker_lightning.grids import read_grid
from viker_lightning.grids.tables import legend
from viker_lightning.metrics import NUMBERS, Number, Score
from viker_lightning.reporting import write_comparison, write_report
from viker_lightning.reporting.contenders import contenders
from viker_lightning.reporting.unmeasured import ASKED, WITH_GOLD, why
from viker_lightning.storage.runs import read_run
from viker_lightning.storage.runs.write import read_predictions, write_predictions

KNOWN = {one.name: one for one in NUMBERS}


@pytest.mark.parametrize(
    ("score", "measured", "kind", "reason"),
    [
        ("keyword_match", [], "method", "nothing was asked there"),
        ("keyword_match", ["accuracy"], "method", "no open question"),
        ("keyword_match", ["rouge_l", "accuracy"], "method", "no private span"),
        ("accuracy", ["rouge_l"], "method", "no multiple-choice question"),
        ("cloze", ["rouge_l", "accuracy"], "vanilla", "no sentence with a blank"),
        ("truth_ratio", ["rouge_l"], "method", "no wrong answers beside the true one"),
        ("kl_gold", ["accuracy"], "gold", "no open question"),
        ("kl_gold", ["rouge_l"], "gold", "it is the gold model itself"),
        ("kl_gold", ["rouge_l"], "vanilla", "no gold model was asked (evaluation.gold)"),
        ("coherence", ["rouge_l"], "method", "not judged (evaluation.coherence), or nothing but refusals"),
        ("model_utility", ["rouge_l"], "method", "the run did not measure it"),
    ],
)
def test_reasons(score, measured, kind, reason):
    assert why(KNOWN[score], measured, kind) == reason


def test_scores_of_others_have_a_reason_too():
    assert why(Number(name="mine", about="?"), ["rouge_l"]) == why(None, ["rouge_l"]) == "the run did not measure it"


def test_what_a_reason_goes_by_is_there_where_the_task_is(run):
    """Every answer of a task has the score that says whether anybody was asked."""
    assert WITH_GOLD <= KNOWN.keys()
    tasks = {one.task for one in NUMBERS if isinstance(one, Score)}
    assert tasks == {*ASKED} and all(KNOWN[score].task == task for task, (score, _) in ASKED.items())
    for predictions in (read_run(run).predictions["after"],):
        for task in {p.task for p in predictions}:
            alone = [p for p in predictions if p.task == task]
            assert all(ASKED[task][0] in numbers for split, numbers in summarise(alone).items() if split != "overall")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def without(run, drop):
    """The run's answers without some of them, and its results of these."""
    kept = [(when, p) for when, p in read_predictions(run / "predictions.parquet") if not drop(when, p)]
    write_predictions(run / "predictions.parquet", kept)
    results = json.loads((run / "results.json").read_text())
    results |= {moment: summarise([p for when, p in kept if when == moment]) for moment in ("before", "after")}
    (run / "results.json").write_text(json.dumps(results))
    return run


def test_a_report_names_what_is_not_there(run):
    text = " ".join(write_report(without(run, lambda when, p: p.task == "choice")).read_text().split())
    titles = "multiple choice right; multiple choice right, by mean log-probability per token"
    assert text.count(f"{titles}: no multiple-choice question. blanks filled right: no sentence with a blank") == 4


def test_a_report_tells_apart_whose_value_is_missing(run):
    text = write_report(without(run, lambda when, p: p.task == "choice" and when == "before")).read_text()
    assert "by mean log-probability per token of vanilla: no multiple-choice question" in text
    assert "by mean log-probability per token of ViKeR: options were not scored by probability" in text


def test_a_comparison_names_whose_value_is_missing(tmp_path, run):
    other = without(write_run(tmp_path / "npo", method="NPO"), lambda when, p: p.split == "real")
    page = write_comparison([run, other], tmp_path / "page.html").read_text()
    assert page.count("Not measured: ") == 1
    assert "real: private spans leaked; real: multiple choice right of NPO: nothing was asked there" in page
    whole = write_comparison([run, write_run(tmp_path / "two", method="NPO")], tmp_path / "whole.html").read_text()
    assert "Not measured" not in whole and {m.name for m in contenders([read_run(run)])} == {"vanilla", "ViKeR"}


def test_a_table_says_why_cells_are_empty(tmp_path, monkeypatch):
    """Also of a value that is no number, which is no value; rows that were not run are told elsewhere."""
    monkeypatch.chdir(ROOT)
    grid = read_grid(small_grid(tmp_path), "mini", 1)
    for cell in grid.cells(tmp_path / "runs"):
        if cell.row == "NPO" and cell.block == "10 %":
            continue
        finish(cell)
        if cell.row == "ViKeR" and cell.block == "5 %":
            without(cell.folder, lambda when, p: when == "after" and p.split == "retain" and p.task == "generation")
            file = cell.folder / "results.json"
            results = json.loads(file.read_text())
            results["after"]["retain"]["keyword_match"] = math.nan
            file.write_text(json.dumps(results))
    table = tabulate(grid, tmp_path / "runs", tmp_path / "results")
    five = "Not measured: retain Keywords of ViKeR: no open question."
    assert [table.unmeasured(block) for block in table.blocks] == [five, ""]
    assert table.value("5 %", "ViKeR", "retain", "keyword_match") is None
    for ending in ("md", "html"):
        text = (tmp_path / f"results/small-mini.{ending}").read_text()
        assert text.count(five) == 1 and " nan" not in text
    assert legend(table).splitlines()[1:] == [five]
