"""Published numbers beside ours: a difference where both are of one scale and protocol, else why there is none."""

import json
from pathlib import Path

import pytest
import yaml

from support.grids import finish, small_grid, tabulate
from viker_lightning.grids import read_grid
from viker_lightning.storage.files import write_json

ROOT = Path(__file__).parents[2]


def table(folder, scale="paper", protocol="published"):
    """A table beside CLEAR's: gold and vanilla at 10 % are finished, with CLEAR's numbers."""
    file = small_grid(folder, published="clear")
    found = yaml.safe_load(file.read_text())
    found["columns"] = {"forget": {"rouge_l": "ROUGE-L", "js_similarity": "1-JS"}, "overall": {"clear_forget": "F"}}
    file.write_text(yaml.safe_dump(found | {"scales": {scale: found["scales"]["mini"]}}))
    grid = read_grid(file, scale, 2)
    for cell in grid.cells(folder / "runs"):
        if (cell.row, cell.block) in (("Gold", "10 %"), ("ViKeR", "10 %")):
            finish(cell)
            results = json.loads((cell.folder / "results.json").read_text()) | {"protocol": protocol}
            results["after"]["overall"] = {"clear_real": 0.4, "clear_retain": 0.625, "clear_forget": 0.2 + cell.seed}
            if "before" in results:
                results["before"]["overall"] = {"clear_real": 0.5}
            write_json(cell.folder / "results.json", results)
    return tabulate(grid, folder / "runs", folder / "results"), folder / "results"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_differences_are_ours_minus_theirs(tmp_path):
    found, results = table(tmp_path)
    (source,) = found.sources
    assert found.difference(source, "10 %", "Gold", "overall/clear_real") == pytest.approx(0.4 - 0.50)
    assert found.difference(source, "10 %", "Vanilla", "overall/clear_real") == pytest.approx(0.5 - 0.48)
    for name, column in (("Gold", "forget/js_similarity"), ("GA", "overall/clear_real"), ("RMU", "overall/clear_real")):
        assert found.difference(source, "10 %", name, column) is None, "ours was not measured"
    text = (results / "small-paper.md").read_text()
    assert "Protocol: published; ours: published." in text and "No difference" not in text
    assert "| Gold | 0.500 (ours -0.100) | 0.510 (ours +0.115) | 0.190 (ours +0.010) | 1.000 |" in text
    page = (results / "small-paper.html").read_text()
    assert "(ours -0.100)" in page and "Protocol: published; ours: published." in page


def test_numbers_that_are_no_means_over_questions_have_no_interval(tmp_path):
    value = table(tmp_path)[0].value("10 %", "ViKeR", "overall", "clear_forget")
    assert value["mean"] == pytest.approx((0.2 + 1.2) / 2) and value["low"] is None and value["rank"] == ""


@pytest.mark.parametrize(
    ("scale", "protocol", "why"),
    [
        ("paper", "corrected", "Protocol: published; ours: corrected. No difference is given"),
        ("mini", "published", "Protocol: published. Another model and other data than above"),
    ],
)
def test_what_does_not_compare_has_no_difference(tmp_path, scale, protocol, why):
    results = table(tmp_path, scale, protocol)[1]
    for kind in ("md", "html"):
        text = (results / f"small-{scale}.{kind}").read_text()
        assert why in text and "(ours " not in text
