"""A score of one's own, named on the command line: wherever the project's own numbers are, it is too."""

import csv
import json
import re
from unittest import mock

import pytest
from lightning.pytorch.loggers import WandbLogger

from support.commands import OPEN_GATE, ROOT, run
from viker_lightning.errors import UserError
from viker_lightning.evaluation import by_person, summarise
from viker_lightning.grids.grid_file import check_columns
from viker_lightning.metrics import load_scores, read_numbers
from viker_lightning.reporting import interval, numbers_of, write_comparison, write_report
from viker_lightning.reporting.run_scores import arrow, scores_of
from viker_lightning.storage.runs import read_run
from viker_lightning.training.callbacks.wandb_dashboard import define, final_numbers

MINE = """
from viker_lightning.metrics import Score

def letters(p):
    return [float(len(p.answer)), float(len(p.reference))]

Letters = Score(name="letters", values=letters, about="letters, <b>said</b> or true", good="low", range=">= 0",
                label="Letters & such", shown=("report", "comparison", "terminal", "people", "card", "board"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base_folder):
    """A finished run with a score of one's own, whose file is gone."""
    place = tmp_path_factory.mktemp("own_score")
    (place / "score_of_ones_own.py").write_text(MINE)
    options = ["--data.root=mini/ci", "--data.max_people=1", *OPEN_GATE, "--trainer.max_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        patch.chdir(ROOT)
        options.append("--evaluation.scores=score_of_ones_own.Letters")
        run("fit", "mini/npo", place / "run", base_folder, *options)
    (place / "score_of_ones_own.py").unlink()
    return place / "run"


def test_it_is_in_the_results(folder):
    found = read_run(folder)
    assert found.results["metrics"]["letters"]["good"] == "low"
    for when in ("before", "after"):
        for split, answers in found.results[when].items():
            mine = [p for p in found.predictions[when] if p.split == split and p.task == "generation"]
            if mine:
                letters = [len(text) for p in mine for text in (p.answer, p.reference)]
                assert answers["letters"] == pytest.approx(sum(letters) / len(letters))
    alone = summarise(found.predictions["after"])
    assert {name for name in found.after["forget"] if name not in alone["forget"]} <= {"letters"}


def test_whoever_has_the_folder_alone_knows_it(folder):
    """Interval, direction and label: nothing is imported."""
    found = read_run(folder)
    sums = scores_of(found)["retain"]["letters"]
    assert interval(sums).value == pytest.approx(found.after["retain"]["letters"])
    assert sums.people == tuple(sorted({p.person for p in found.predictions["after"] if p.split == "retain"}))
    assert numbers_of([found])["letters"].title == "Letters & such"
    assert arrow("forget", "letters", [found]) == "↓" and arrow("forget", "letters") == "·"
    assert read_numbers(found.results["metrics"])["letters"].sentence.endswith("low is good everywhere")


def test_it_is_shown(folder, tmp_path):
    page = write_report(folder).read_text()
    rows = re.findall(r"<tr><th scope=\"row\"[^>]*>Letters &amp; such <span[^>]*>(.)</span>", page)
    assert len(rows) >= 4 and set(rows) == {"↓"}
    assert "letters, &lt;b&gt;said&lt;/b&gt; or true" in page
    comparison = write_comparison([folder, folder], tmp_path / "comparison.html").read_text()
    assert 'test <span aria-hidden="true">↓</span>' in comparison and "Letters &amp; such" in comparison
    assert "| forget | letters | low |" in (folder / "adapter/README.md").read_text()


def test_loggers_get_it(folder):
    with (folder / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("forget/letters")]
    assert (
        float(logged[-1]["forget/letters"])
        == json.loads((folder / "results.json").read_text())["after"]["forget"]["letters"]
    )


def test_wandb_knows_which_end_is_good(folder):
    run = read_run(folder)
    logger = mock.create_autospec(WandbLogger, instance=True)
    logger.experiment = mock.Mock()
    define(logger, ["forget/letters"], numbers_of([run]))
    assert logger.experiment.define_metric.call_args.kwargs["summary"] == "last,min"
    sent = dict(final_numbers(run.results))
    assert sent["after/forget/letters"] == run.after["forget"]["letters"]
    assert not any("sums" in name for name in sent)


def test_a_table_may_have_it_and_people_too(folder, tmp_path, monkeypatch):
    (tmp_path / "score_of_a_grid.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    check_columns(tmp_path, {"forget": {"letters": "Letters"}}, "score_of_a_grid.Letters")
    with pytest.raises(UserError, match="no score 'letters'"):
        check_columns(tmp_path, {"forget": {"letters": "Letters"}})
    answers = read_run(folder).predictions["after"]
    people = by_person(answers, load_scores("score_of_a_grid.Letters"))
    assert all(person["letters"] > 0 for person in people["forget"].values())
