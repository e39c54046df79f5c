"""A grid of requests one after another: which run goes on from which, what stays known, and its table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from support.grids import finish, tabulate
from viker_lightning.data.datasets import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.grids import read_grid
from viker_lightning.grids.tables import draw_figures
from viker_lightning.jobs.children import Ended
from viker_lightning.jobs.job import State
from viker_lightning.storage.files import write_json

ROOT = Path(__file__).parents[2]
FILE = Path("experiments/sequence.yaml")
BLOCKS = ["1 request", "2 requests", "3 requests"]
REQUESTS = [["000"], ["001", "002"], ["003"]]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def grid():
    return read_grid(FILE, "mini", 2)


@pytest.mark.extended
def test_three_requests_of_two_people_each():
    """Each split of the embedded benchmark holds those before it."""
    people = []
    for percent in (5, 10, 15):
        data = MLLMU("mini/default", forget=percent)
        data.prepare_data()
        data.setup()
        people.append({*data.forget_ids})
    assert people[0] < people[1] < people[2] and [len(one) for one in people] == [2, 4, 6]


def test_a_run_goes_on_from_that_of_the_request_before(grid):
    found = {(cell.block, cell.row, cell.seed): cell for cell in grid.cells(Path("runs"))}
    assert len(found) == 3 * (1 + 1 + 3 * 2) and [*grid.blocks] == BLOCKS
    for (block, row, seed), cell in found.items():
        number = BLOCKS.index(block)
        if row.startswith("Gold"):
            assert cell.previous is None and "data.forgotten_by" not in cell.options
            continue
        assert cell.gold == found[block, "Gold", 0] and cell.options["evaluation.gold"] == str(cell.gold.folder)
        before = found[BLOCKS[number - 1], row, seed] if number else None
        assert cell.previous == before
        for option in ("model.vanilla", "data.forgotten_by"):
            assert cell.options.get(option) == (str(before.folder) if before else None)
    assert len({cell.folder for cell in found.values()}) == len(found)


def test_it_is_the_same_run_wherever_the_runs_are(grid, tmp_path):
    one, other = (grid.cell(folder, BLOCKS[2], "NPO", 1) for folder in (tmp_path / "a", tmp_path / "b"))
    assert one.folder.name == other.folder.name and one.fingerprint() == other.fingerprint()
    changed = replace(one, previous=replace(one.previous, options={**one.previous.options, "model.lr": 1}))
    assert changed.fingerprint() != one.fingerprint(), "another run before it makes another run of it"


def test_the_request_before_is_made_first(grid, tmp_path, monkeypatch):
    made = []

    def run_child(command, environment, log, append, stop):
        block, row = environment["WANDB_TAGS"].split(",")[0], environment["WANDB_JOB_TYPE"]
        made.append((block, row))
        failed = row == "ViKeR" and block == BLOCKS[1]
        log.write_text("error: too little" * failed)
        if not failed:
            write_json(log.with_name("results.json"), {})
        return Ended(int(failed), 1.0, 1, None)

    monkeypatch.setattr("viker_lightning.jobs.job.run_child", run_child)
    assert grid.cell(tmp_path, BLOCKS[2], "NPO", 0).run() == State.FINISHED
    assert [one for one in made if one[1] == "NPO"] == [(block, "NPO") for block in BLOCKS]
    last = grid.cell(tmp_path, BLOCKS[2], "ViKeR", 0)
    assert last.run() == State.FAILED and (BLOCKS[2], "ViKeR") not in made
    assert last.complaint() == "the request before it failed: error: too little"


def told(cell):
    """Of four questions; ViKeR's people are known again as requests follow, of odd people one more."""
    return {"Gold": 0, "NPO": 1, "ViKeR": BLOCKS.index(cell.block) + 1}.get(cell.row, 0)


@pytest.fixture
def made(grid, tmp_path):
    for cell in grid.cells(tmp_path / "runs"):
        if cell.row in ("Gold", "NPO", "ViKeR"):
            finish(cell, told(cell), key_tokens=False)
            if cell.row != "Gold":
                record = json.loads((cell.folder / "provenance.json").read_text())
                record["data"]["requests"] = REQUESTS[: BLOCKS.index(cell.block) + 1]
                write_json(cell.folder / "provenance.json", record)
    return tabulate(grid, tmp_path / "runs", tmp_path / "results"), tmp_path / "results"


@pytest.mark.extended
def test_the_record_has_every_request_by_itself(made):
    _, results = made
    found = json.loads((results / "sequence-mini.json").read_text())["sequence"]
    assert found["requests"] == REQUESTS
    lines = found["values"]["ViKeR"]["test/keyword_match"]
    assert lines["request 1"] == [[1, 0.25], [2, 0.5], [3, 0.75]], "person 000 tells as much as the rest"
    assert lines["request 2"] == [[2, 0.625], [3, 0.875]] and lines["request 3"] == [[3, 1.0]]
    assert lines["all so far"] == [[1, 0.375], [2, 0.625], [3, 0.875]]
    assert found["values"]["Gold"]["test/keyword_match"]["request 1"] == [[1, 0.0], [2, 0.0], [3, 0.0]]
    assert [*found["values"]["ViKeR"]["retain/keyword_match"]] == ["all so far"]
    assert found["values"]["Stranger"]["test/keyword_match"] == {}


@pytest.mark.extended
def test_pages_and_figure(made, tmp_path):
    table, results = made
    text, page = ((results / f"sequence-mini.{kind}").read_text() for kind in ("md", "html"))
    assert "## Each request by itself: test Keywords ★" in text and "| after 1 | after 2 | after 3 |" in text
    assert "| ViKeR, request 2 |  | 0.62 | 0.88 |" in text and "retain Keywords: " not in text
    assert "Each request by itself: forget MC" in page and "from request to request</title>" in page
    assert text.index("## 3 requests") < text.index("## Each request by itself") < text.index("## Runs")
    drawn = {file.stem: file.read_text() for file in draw_figures(table, tmp_path)}
    assert {"sequence-mini", "sequence-mini-trade-off"} <= drawn.keys()
    shown = drawn["sequence-mini"]
    assert all(f">{said}<" in shown for said in ("requests carried out", "test Keywords ★, request 1", "ViKeR", "Gold"))
    assert ">Stranger<" not in shown, "was not run"


def test_nothing_was_run(grid, tmp_path):
    table = tabulate(grid, tmp_path / "runs", tmp_path)
    assert draw_figures(table, tmp_path) == [] and "Each request" not in (tmp_path / "sequence-mini.md").read_text()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda m: m.update(sequence="yes"), "sequence: found 'yes', expected true or false"),
        (lambda m: m.pop("blocks"), "sequence: found 0 blocks, expected two blocks or more, one a request"),
        (
            lambda m: m["rows"].update(Vanilla={"before": "NPO"}),
            "rows.Vanilla.before: from the second request on runs begin with what the one before has left",
        ),
    ],
)
def test_what_is_no_sequence_is_named(tmp_path, change, said):
    found = yaml.safe_load(FILE.read_text())
    change(found["scales"]["mini"])
    file = tmp_path / "sequence.yaml"
    file.write_text(yaml.safe_dump(found, sort_keys=False))
    with pytest.raises(UserError) as error:
        read_grid(file, "mini", 1)
    assert str(error.value).startswith(f"{file}, scales.mini.{said}") and "\n" not in str(error.value)


def test_blocks_of_another_grid_do_not_follow_each_other(tmp_path):
    found = yaml.safe_load(FILE.read_text())
    found["scales"]["mini"]["sequence"] = False
    file = tmp_path / "sequence.yaml"
    file.write_text(yaml.safe_dump(found, sort_keys=False))
    assert not any(cell.previous for cell in read_grid(file, "mini", 1).cells(tmp_path))
