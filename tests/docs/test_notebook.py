"""The notebook of examples/, run cell by cell as it stands; in the quick test with an untrained model and one step."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended

NOTEBOOK = Path(__file__).parents[2] / "examples/forget_a_person.ipynb"
CELLS = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]


def run(folder, monkeypatch, **instead):
    """What the cells have left; ``instead`` are values that one of them sets, as code."""
    monkeypatch.chdir(folder)
    found, left = {"__name__": "__main__"}, dict(instead)
    for cell in CELLS:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            for number, line in enumerate(lines):
                if (name := line.partition(" = ")[0]) in left:
                    lines[number] = f"{name} = {left.pop(name)}"
            exec("\n".join(lines), found)
    assert not left, f"no cell sets {', '.join(left)}"
    return found


def test_it_holds_no_output():
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in CELLS)
    assert max(len(line.rstrip("\n")) for cell in CELLS for line in cell["source"]) <= 120


def test_every_cell_runs(tmp_path, monkeypatch, base_folder, data):
    gate = "KnowledgeGate(knowledge=0.0, follows_image=0.0, follows_text=1.0)"
    found = run(tmp_path, monkeypatch, VANILLA=repr(str(base_folder)), STEPS="1", GATE=gate)
    assert len(found["answers"]) == 6
    results = json.loads((tmp_path / "runs/notebook/viker/results.json").read_text())
    assert results["after"]["forget"]["n"] == 36 and results["after"]["test"]["n"] == 6
    for name in ("report.html", "adapter/adapter_model.safetensors", "provenance.json", "metrics.csv"):
        assert (tmp_path / "runs/notebook/viker" / name).is_file(), name


@pytest.mark.slow
def test_the_person_is_forgotten_and_another_is_not(tmp_path, monkeypatch):
    """As the notebook says: its model is taught these people first."""
    found = run(tmp_path, monkeypatch)
    for (person, question), (before, after) in found["answers"].items():
        if person == found["FORGET"]:
            assert before != after, question
        else:
            assert before == after, question
