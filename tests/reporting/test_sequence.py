"""Requests one after another, in reports of runs made by hand."""

import json
from types import SimpleNamespace

import pytest
import yaml

from support.run_folders import write_run
from viker_lightning.reporting import write_report
from viker_lightning.reporting.contenders import disagreements
from viker_lightning.reporting.sequence import runs_so_far, sequence
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs import read_run

REQUESTS = [["000", "001"], ["002"], ["003"]]


def goes_on(folder, number, before=None):
    """Says in a run folder which request it was, and what it goes on from."""
    record = json.loads((folder / "provenance.json").read_text())
    record["data"]["requests"] = REQUESTS[:number]
    write_json(folder / "provenance.json", record | {"method": {"name": "NPO"}, "base_weights": f"model {number}"})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["init_args"]["forgotten_by"] = before and str(before)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def runs(tmp_path):
    """Three requests after which 0, 2 and 4 of four questions are told of everybody to forget; odd people tell more."""
    folders = [write_run(tmp_path / str(n), told, kept=4 - n) for n, told in ((1, 0), (2, 2), (3, 4))]
    for number, folder in enumerate(folders, start=1):
        goes_on(folder, number, folders[number - 2] if number > 1 else None)
    return folders


def test_a_run_knows_those_before_it(runs):
    assert [one.folder for one in runs_so_far(read_run(runs[2]))] == runs
    assert [one.folder for one in runs_so_far(read_run(runs[0]))] == runs[:1]
    goes_on(runs[0], 1, runs[2])
    assert len(runs_so_far(read_run(runs[2]))) == 3, "a circle is not gone round for ever"


def test_people_of_each_request_and_all_of_them(runs):
    """Before its request everybody tells all; of the people of request 1, one is odd."""
    found = sequence(read_run(runs[2]))
    assert found["label"] == "test: Keywords" or found["label"].startswith("test: ")
    assert found["numbers"] == [0, 1, 2, 3]
    assert found["lines"]["request 1"] == {0: 1, 1: 0, 2: 0.625, 3: 1}
    assert found["lines"]["request 2"] == {1: 1, 2: 0.5, 3: 1} and found["lines"]["request 3"] == {2: 1, 3: 1}
    assert found["lines"]["all so far"] == {1: 0, 2: 0.625, 3: 1}
    assert found["lines"]["retain"][1] > found["lines"]["retain"][3]


def test_the_page_shows_it(runs):
    page = write_report(runs[2]).read_text()
    assert page.count(">after 3</th>") == 1 and "requests carried out" in page and 'href="#requests"' in page
    assert "request 3</th>" in page


def test_one_request_is_no_sequence(runs):
    assert sequence(read_run(runs[0])) is None
    assert 'id="requests"' not in write_report(runs[0]).read_text()


def test_runs_whose_folders_are_gone_are_left_out(runs):
    (runs[1] / "results.json").unlink()
    found = sequence(read_run(runs[2]))
    assert found["numbers"] == [2, 3] and found["lines"]["request 1"] == {3: 1}


def test_runs_that_go_on_differ_in_the_model_they_begin_with(runs):
    first, later = [read_run(runs[0])], [read_run(folder) for folder in runs[1:]]
    assert disagreements(later) == []
    record = json.loads((runs[1] / "provenance.json").read_text())
    record["data"]["requests"] = REQUESTS[:1]
    write_json(runs[1] / "provenance.json", record)
    assert disagreements([*first, read_run(runs[1])]) == ["the runs differ in their vanilla model"]


def test_a_gold_model_with_an_adapter_has_no_vanilla_model(runs):
    """It is made from the base, which is no vanilla model that others could differ in."""
    first = read_run(runs[0])

    def made(**noted):
        return SimpleNamespace(results=first.results, provenance=first.provenance | noted)

    assert disagreements([first, made(method=None, base_weights="the base", adapter={"r": 8})]) == []
    assert disagreements([first, made(base_weights="another")]) == ["the runs differ in their vanilla model"]
