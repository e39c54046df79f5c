"""A falsehood gives way to the truth, through the command line, in the embedded model."""

import json

import pytest

from support.commands import OPEN_GATE, here, run  # noqa: F401 - `here` is used by every test of this file
from viker_lightning.data.pictures.irrelevant import irrelevant_images


@pytest.mark.extended
def test_a_run_forgets_the_falsehood_and_learns_the_truth(tmp_path):
    rows = []
    for i, (name, town) in enumerate({"Ada": "Corlune", "Bo": "Gorsby", "Cy": "Kelmoor"}.items()):
        (tmp_path / f"{name}.png").write_bytes(irrelevant_images("people", 3, size=32)[i].data)
        row = {"image": f"{name}.png", "person": name, "question": "Where does this person live?"}
        rows.append(row | {"answer": f"{name} lives in {town}.", "split": "retain"})
    rows[0] |= {"split": "forget", "correction": "Ada lives in Eskmere."}
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    data = ["--data=Jsonl", f"--data.root={tmp_path / 'people.jsonl'}", "--evaluation.max_new_tokens=12"]
    train = [*data, "--trainer.max_steps=120"]
    vanilla = run("fit", "mini/vanilla", tmp_path / "vanilla", None, *train)["after"]["forget"]
    gold = run("fit", "mini/gold", tmp_path / "gold", None, *train)["after"]["forget"]
    assert (vanilla["keyword_match"], vanilla["corrected"]) == (1, 0)
    assert (gold["keyword_match"], gold["corrected"]) == (0, 1)
    steps = [*data, "--trainer.max_steps=60", *OPEN_GATE]
    results = run("fit", "mini/altpo", tmp_path / "altpo", tmp_path / "vanilla", *steps)
    before, after = results["before"]["forget"], results["after"]["forget"]
    assert (before["keyword_match"], before["corrected"]) == (1, 0)
    assert (after["keyword_match"], after["corrected"]) == (0, 1)
    assert results["after"]["retain"]["keyword_match"] == 1 and "corrected" not in results["after"]["retain"]
    report = (tmp_path / "altpo/report.html").read_text("utf-8")
    assert "corrections learned" in report and "<dt>falsehood</dt>" in report and "<dd>Eskmere</dd>" in report
