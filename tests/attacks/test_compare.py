"""The same attacks on every run of a grid."""

import json

import pytest
import yaml

from support import forked
from support.commands import SHORT
from viker_lightning.attacks.kinds.relearn import ADAPTER, EVERYBODY
from viker_lightning.grids.__main__ import main as experiments
from viker_lightning.grids.compare import main, markdown, of_run, relearning, summarised
from viker_lightning.reporting.attacked import more_than_gold

MADE = {"grid": "g", "scale": "mini", "code": "c", "command": "python -m a g.yaml"}
MADE |= {"commits": {"attacks": "abc", "runs": ["abb", "abc"]}}


def record(run, gold, kept=1.0, clean=0.0, says=True):
    def row(series, x, mine, theirs):
        of = {"run": {"forget": mine, "retain": kept}, "gold": {"forget": theirs, "retain": 1.0}}
        return {"series": series, "x": x, "clean": series == "as asked", "counts": series != "as asked"} | of

    rows = [row("as asked", None, clean, 0.0), row("crop", None, run, 0.0), row("blur", None, 0.0, gold)]
    return {"attacks": {"show": {"conditions": rows, "says": says}, "broken": {"conditions": [], "says": says}}}


def test_the_worst_of_each():
    assert of_run(record(0.5, 0.2, kept=0.9, clean=0.1)) == {
        "show": {"run": 0.5, "gold": 0.2, "more_than_gold": 0.3, "kept": 0.9, "as_asked": 0.1, "gold_as_asked": 0.0}
        | {"says": 1.0}
    }


def test_what_guessing_gives_is_taken_off():
    run, gold = {"forget": 0.77, "chance": 0.69}, {"forget": 0.39, "chance": 0.36}
    assert more_than_gold(run, [gold]) == pytest.approx(0.05)
    assert more_than_gold({"forget": 0.5}, [{"forget": 0.2}, {"forget": 0.4}]) == pytest.approx(0.2)


def test_of_several_golds_each_has_its_own_worst():
    found = record(0.5, 0.2)
    for row, share in zip(found["attacks"]["show"]["conditions"], (0.1, 0.4, 0.3), strict=True):
        row["gold 2"] = {"forget": share}
    of = of_run(found)["show"]
    assert (of["gold"], of["gold_as_asked"], of["more_than_gold"]) == pytest.approx((0.3, 0.05, 0.2))


def test_over_blocks():
    found = {(str(b), "NPO", s): of_run(record(0.4 + s / 10, 0.1)) for b in range(6) for s in range(2)}
    found |= {("0", "ViKeR", 0): of_run(record(0.1, 0.3))}
    rows = summarised(found)
    assert rows["NPO"]["show"] == pytest.approx(
        {"run": 0.45, "gold": 0.1, "kept": 1.0, "as_asked": 0.0, "gold_as_asked": 0.0, "more_than_gold": 0.35}
        | {"says": 1.0, "p": 2 / 2**6, "blocks": 6, "holm": 2 / 2**6, "p_equivalent": 1.0}
    )
    assert rows["ViKeR"]["show"]["more_than_gold"] == pytest.approx(-0.2) and rows["ViKeR"]["show"]["p"] == 1
    back = [{"row": "NPO", "run": {"people": 1, "of": 4}, "gold": {"people": 0, "of": 4}}] * 2
    text = markdown({**MADE, "rows": rows, "back": back, "relearning": []})
    assert "| NPO | 0.00, 0.00 | 0.45*, 0.10 (1.00) | 2 of 8, 0 of 8 |" in text
    assert "| ViKeR | 0.00, 0.00 | 0.10, 0.30 (1.00) | -, - |" in text
    assert "Of fewer blocks than the 6 of the others: ViKeR, show (1)." in text and "no star" not in text
    few = markdown(
        {**MADE, "rows": summarised({("0", "NPO", 0): of_run(record(1.0, 0.0))}), "back": [], "relearning": []}
    )
    assert "Blocks: 1. With so few no star is possible" in few


@pytest.mark.parametrize(
    ("says", "apart", "cell"),
    [(True, 0.02, "0.12*=, 0.10"), (True, 0.08, "0.18*, 0.10"), (False, 0.08, "0.18*=, 0.10")],
)
def test_equivalent_to_gold_within_a_margin(says, apart, cell):
    """What differs, however little, may be equivalent; the margin is wider for what is inside."""
    found = {(str(b), "NPO", 0): of_run(record(0.1 + apart, 0.1, says=says)) for b in range(6)}
    assert cell in markdown({**MADE, "rows": summarised(found), "back": [], "relearning": []})


def test_looks_inside_are_corrected_apart():
    def both(block):
        one, other = record(0.5, 0.1), record(0.5, 0.1, says=False)
        return {"attacks": {"show": one["attacks"]["show"], "lens": other["attacks"]["show"]}}

    row = summarised({(str(b), "NPO", 0): of_run(both(b)) for b in range(6)})["NPO"]
    assert row["show"]["holm"] == row["lens"]["holm"] == 2 / 2**6
    assert "| NPO | 0.00, 0.00 | 0.50*" in markdown({**MADE, "rows": {"NPO": row}, "back": [], "relearning": []})


def test_conditions_that_gold_did_not_go_through_do_not_count():
    found = record(0.9, 0.2)
    del found["attacks"]["show"]["conditions"][1]["gold"]
    assert of_run(found)["show"]["run"] == 0.0, "the worst of those that both went through"


def test_relearning():
    def of(run, gold, left):
        """A run that is as unknown as gold before it is taught, and gold that gains ``gold``."""
        before, after = ({who: {"forget": share} for who in ("run", "gold")} for share in (0.1, 0.1 + gold))
        ratio = min(gold / (run - 0.1), 1.0)
        return {
            "attacks": {
                "relearn": {
                    "conditions": [
                        {"series": "as asked", "x": None} | before,
                        {"series": EVERYBODY, "x": 0} | before,
                        {"series": EVERYBODY, "x": 20} | after | {"run": {"forget": run}, "R": ratio},
                        {"series": ADAPTER, "x": 20, "run": {"forget": left}},
                        {"series": "relearning on other people", "x": 20} | after,
                    ]
                }
            }
        }

    gains = {("0", "NPO", 0): of(0.5, 0.2, 0.9), ("0", "NPO", 1): of(0.7, 0.2, 0.9), ("1", "NPO", 0): of(0.3, 0.1, 0.7)}
    found = relearning(gains)
    assert found[1] == (
        {"block": "0", "row": "NPO", "seed": 0, "steps": 20, "adapter": False}
        | {"run": 0.5, "gold": pytest.approx(0.3), "R": pytest.approx(0.5)}
    )
    assert [(one["adapter"], one["gold"]) for one in found[2:3]] == [(True, None)] and len(found) == 9
    text = markdown({**MADE, "rows": {}, "back": [], "relearning": found})
    assert "Made by `python -m a g.yaml` at abc, runs at abb, abc." in text
    assert "| method | 0 steps | 20 steps | less gold (p) | R | adapter kept |" in text
    assert "| Gold | 0.10 | 0.25 | - | - | - |" in text, "blocks count alike, however many seeds they have"
    row = next(line for line in text.splitlines() if line.startswith("| NPO"))
    gained = (0.2 / 0.4 + 0.2 / 0.6) / 2
    left = f"{((0.2 + 0.4) / 2 + 0.1) / 2:+.2f}, p 0.500 | {(gained + 0.5) / 2:.2f} | {(0.9 + 0.7) / 2:.2f}"
    assert row == f"| NPO | 0.10 | {(0.6 + 0.3) / 2:.2f} | {left} |"


@pytest.fixture
def grid(tmp_path, base_folder, monkeypatch):
    monkeypatch.setattr("viker_lightning.jobs.children.subprocess", forked.subprocess)
    two = {"trainer.max_steps": 2, "trainer.logger": False, "evaluation.max_new_tokens": 3}
    options = {name.removeprefix("--"): yaml.safe_load(value) for name, value in (one.split("=") for one in SHORT)}
    gold = {"config": "configs/mini/gold.yaml", "seeds": 1, "options": two | {"model.base": str(base_folder)}}
    mini = {"note": "Tiny.", "config": "configs/mini/npo.yaml", "gold": "Gold", "rows": {"Gold": gold, "NPO": {}}}
    mini["options"] = {**options, **two, "model.vanilla": str(base_folder)}
    columns = {"forget": {"rouge_l": "ROUGE-L"}}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"title": "Small", "columns": columns, "scales": {"mini": mini}}))
    return file


@pytest.mark.extended
def test_a_grid(grid, tmp_path, capsys):
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump({"relearn": {"steps": [0, 1], "shares": [0.5], "batch_size": 8}}))
    where = [f"--runs={tmp_path / 'runs'}", f"--results={tmp_path / 'results'}", "--seeds=1", "--jobs=2"]
    with pytest.raises(SystemExit, match=r"1 of 1 runs are not finished, e.g. NPO / seed 0; make them first: python"):
        main([str(grid), *where])
    experiments(["run", str(grid), "--scale=mini", *where])
    main([str(grid), *where, "--only=relearn", f"--settings={settings}"])
    table = json.loads((tmp_path / "results/attacks-small-mini.json").read_text())
    assert [*table["rows"]] == ["NPO"] and table["settings"]["relearn"]["steps"] == [0, 1]
    (run,) = (one for one in (tmp_path / "runs").glob("mini-npo-*") if one.is_dir())
    written = json.loads((run / "attacks/attacks.json").read_text())
    assert table["values"][0]["attacks"] == of_run(written)
    assert [one["steps"] for one in table["relearning"] if not one["adapter"]] == [0, 1]
    assert table["command"].startswith("python -m viker_lightning.grids.compare /") and table["commits"]["runs"]
    assert "| NPO | 0." in (tmp_path / "results/attacks-small-mini.md").read_text()
    capsys.readouterr()
    main([str(grid), *where, "--only=relearn", f"--settings={settings}"])
    assert "all 2 attacks are finished already" in capsys.readouterr().out
