"""The scripts that ask what grows with the number of people, and who may be a stranger."""

import itertools
import json
from pathlib import Path

import growth
import pytest
import strangers

from support.grids import finish
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.data.embedded import portraits
from viker_lightning.data.records import Picture
from viker_lightning.grids import read_grid
from viker_lightning.grids.grid import config_option

pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_size_takes_the_same_steps_for_a_person(tmp_path):
    models, methods = growth.cells(tmp_path)
    assert len(models) == 8 and len(methods) == 12
    steps = {(cell.block, cell.row): cell.options["trainer.max_steps"] for cell in [*models, *methods]}
    assert steps["40 people", "NPO"] == config_option("configs/mini/npo.yaml", "trainer.max_steps")
    assert steps["100 people", "Gold"] == 2.5 * steps["40 people", "Gold"]
    assert steps["190 people", "Gold"] == round(4.75 * steps["40 people", "Gold"])
    (large,) = [cell for cell in methods if (cell.block, cell.row) == ("100 people", "ViKeR")]
    vanilla, gold = (cell for cell in models if cell.block == "100 people")
    assert large.options["model.vanilla"] == str(vanilla.folder) and large.gold == gold
    assert large.options["data.root"] == "mini/large"


def test_the_page_of_growth_has_a_row_a_run(tmp_path):
    cell = growth.cells(tmp_path)[0][0]
    finish(cell)
    row = {"people": 12, "forgotten": 2, "run": "Vanilla", **growth.measured(cell)}
    page = growth.markdown({"processor": "x86_64", "jobs": 2, "commits": ["0123456789"], "rows": [row]})
    assert f"| 12 | 2 | Vanilla | {cell.options['trainer.max_steps']} |" in page
    assert f"| {row['test/keyword_match']:.2f} |" in page


def test_those_who_are_alike_are_nobody_of_the_benchmark():
    faces = strangers.faces("3")
    forgotten = list(faces.values())[:4]
    known = {portraits.identity(face) for face in faces.values()}
    for number, (face, _) in enumerate(itertools.islice(strangers.alike(forgotten, "3"), 8)):
        shared = [
            a == b for a, b in zip(portraits.identity(face), portraits.identity(forgotten[number % 4]), strict=True)
        ]
        assert sum(shared) >= strangers.SHARED and portraits.identity(face) not in known


def test_faces_are_those_of_the_benchmark():
    """Of the photos that its folder holds."""
    data = MLLMU("mini/default@0", forget=10, stage="unlearn")
    data.prepare_data()
    data.setup()
    for person in data.streams["forget"]:
        drawn = Picture(portraits.draw_portrait(strangers.faces("0")[person.id], 0), "drawn")
        assert person.images[0].key == drawn.key


def test_differences_over_worlds(tmp_path, monkeypatch):
    monkeypatch.setattr(strangers, "draw", lambda pictures, folder: folder)
    monkeypatch.setattr(strangers, "_forgotten", lambda world: [])
    worlds = strangers.cells(read_grid(Path("experiments/worlds.yaml"), "mini", 1), tmp_path / "runs")
    for rows in worlds.values():
        for row, cell in rows.items():
            finish(cell)
            file = cell.folder / "results.json"
            found = json.loads(file.read_text())
            scores = {"keyword_match": 0.5, "accuracy": 0.5, "kl_gold": 0.5 + 0.25 * (row == "resemble the people")}
            found["after"] = {split: scores for split in ("test", "retain", "real")}
            file.write_text(json.dumps(found))
    found = strangers.record(worlds)
    assert found["p"]["test/kl_gold"] == {"resemble the people": pytest.approx(2 / 128), "resemble each other": 1}
    assert "| resemble the people | 0.50 (1.000) | 0.50 (1.000) | 0.75 (0.016) |" in strangers.markdown(found)
