"""The script that asks whether the ends of the tuned spaces bind."""

import json
from pathlib import Path

import edges
import pytest

from viker_lightning.grids.tuning.spaces import Choices, Range, config_options, read_spaces

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "studies/edges.json"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_end_is_passed_or_it_is_said_why_not():
    spaces, record = read_spaces(edges.SPACES), json.loads(edges.RECORD.read_text())
    found = list(edges.rows(spaces, record))
    ends = {(m, o) for m, of in record["methods"].items() for o, end in of["edges"].items() if end}
    assert {(method, option) for method, option, _, _ in found} == {end for end in ends if end[1] not in edges.NO_MORE}
    passed_over = {f"{method} {option}" for method, option in ends if option in edges.NO_MORE}
    assert passed_over
    assert set(edges.not_tried(record)) == passed_over == set(json.loads(PAGE.read_text())["not tried"])
    for method, option, value, setting in found:
        space, shipped = spaces.methods[method], config_options(spaces.configs / f"{method}.yaml")
        assert setting[option] == value and not (space[option].holds(value) and space[option].edge(value) == "")
        assert {o: v for o, v in setting.items() if o != option} == {o: shipped[o] for o in space if o != option}


def test_values_beyond_an_end():
    assert edges.beyond("model.lr", 0.01, "high", Range(0.001, 0.01)) == (0.0141, 0.02)
    assert edges.beyond("trainer.max_steps", 20, "low", Range(20, 150, int=True)) == (14, 10)
    assert edges.beyond("model.method.k", 40, "high", Choices((20, 40))) == (80,)
    assert edges.beyond("model.method.layer", 2, "high", Choices((0, 1, 2))) == ()


def test_the_page():
    row = {"method": "npo", "option": "trainer.max_steps", "best": 140, "value": 280}
    page = edges.markdown(
        {
            "worlds": ["100", "101"],
            "commits": ["0123456789"],
            "not tried": {"rmu model.method.layer": "it is the model's last"},
            "rows": [row | {"best score": [0.1, 0.3], "score": [0.25, 0.35]}],
        }
    )
    assert "| npo | trainer.max_steps | 140 | 280 | 0.200 (0.100, 0.300) | 0.300 (0.250, 0.350) |" in page
    assert page.endswith("not moved: rmu model.method.layer (it is the model's last).\n")
    assert "worlds 100 and 101" in page and "012345678." in page
