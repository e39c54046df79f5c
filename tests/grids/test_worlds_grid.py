"""A grid of worlds with runs made by hand: its record, pages and figures, what is missing, and rows chosen by name."""

import io
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from support.grids import finish, tabulate
from viker_lightning.errors import UserError
from viker_lightning.grids import read_grid
from viker_lightning.grids.__main__ import main
from viker_lightning.grids.grid_file import rows_to_run
from viker_lightning.grids.tables import draw_figures, legend, summary
from viker_lightning.grids.tables.worlds import Measure, differences
from viker_lightning.grids.tables.worlds_page import worlds_markdown

ROOT = Path(__file__).parents[2]
FILE = Path("experiments/worlds.yaml")
TOLD = {"Gold": 1, "Gold, other seed": 0, "NPO": 3, "ViKeR": 1}
"""Of four questions, of which odd people tell one more: gold .375, NPO .875, ViKeR as gold."""


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight worlds; IDK was not run, and GA lacks world 5; Stranger tells all in even worlds."""
    folder = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        grid = read_grid(FILE, "mini", 1)
        for cell in grid.cells(folder / "runs"):
            if cell.row in ("IDK", "GradDiff", "KL-Min") or (cell.row, cell.block) == ("GA", "5"):
                continue
            told = TOLD.get(cell.row, 4 if cell.row == "Stranger" and int(cell.block) % 2 == 0 else 0)
            finish(cell, told, kept=2 if cell.row == "NPO" else 4)
        table = tabulate(grid, folder / "runs", folder / "results")
    return table, folder / "results", json.loads((folder / "results/worlds-mini.json").read_text())


def test_the_record_has_every_world(made):
    _, _, record = made
    assert record["worlds"] == list("01234567") and record["reference"] == "ViKeR"
    assert record["methods"] == ["GA", "NPO", "ViKeR", "Stranger"] and record["not_run"] == [
        "GradDiff",
        "KL-Min",
        "IDK",
    ]
    assert [record[name] for name in ("vanilla", "gold", "second_gold")] == ["Vanilla", "Gold", "Gold, other seed"]
    test = {name: world["test/keyword_match"] for name, world in record["values"]["3"].items()}
    assert test == {
        "Vanilla": 1,
        "Gold": 0.375,
        "Gold, other seed": 0,
        "GA": 0,
        "NPO": 0.875,
        "ViKeR": 0.375,
        "Stranger": 0,
    }
    assert "GA" not in record["values"]["5"] and record["left_out"] == {"GA": ["5"]}
    measured = record["measured"]["3"]
    assert measured["NPO"]["test/keyword_match"] == 0.5 and measured["ViKeR"]["test/keyword_match"] == 0
    assert measured["NPO"]["retain/keyword_match"] == pytest.approx(0.625 - 1) and measured["NPO"]["test/kl_gold"] == 0
    assert record["made_with"]["commit"] == ["0123456789abcdef"] and "max_steps" in record["settings"]["NPO"]
    assert record["means"]["Stranger"]["forget/keyword_match"] == {"value": 0.5, "measured": 0.5, "worlds": 8}


def test_the_floor_is_gold_against_gold(made):
    floor = made[2]["floor"]
    assert floor["test/keyword_match"] == {"by_world": dict.fromkeys("01234567", 0.375), "mean": 0.375}
    assert floor["test/kl_gold"]["mean"] == 0.5, "of the divergence the second gold model's own"
    assert floor["retain/keyword_match"]["mean"] == 0


def test_differences_follow_from_the_record(made):
    record = made[2]
    measures = [Measure(**one) for one in record["measures"]]
    assert differences(record["measured"], measures, record["methods"], "ViKeR") == record["differences"]
    npo = record["differences"]["test/keyword_match"]["NPO"]
    assert (npo["estimate"], npo["low"], npo["high"], npo["p"], npo["p_holm"]) == (-0.5, -0.5, -0.5, 2 / 256, 6 / 256)
    assert record["differences"]["forget/keyword_match"]["GA"]["worlds"] == list("0123467")
    assert [one["kind"] for one in record["measures"][:7]] == ["distance"] * 4 + ["floor", "value", "value"]
    assert {one["kind"] for one in record["measures"][7:]} == {"kept"}


def test_the_page_is_made_of_the_record_alone(made):
    _, results, record = made
    text = (results / "worlds-mini.md").read_text()
    assert worlds_markdown(record) == text
    assert re.search(r"\| NPO \| -0.500 ≠ \[-0.500, -0.500\] p 0.023 \|", text), "farther from gold"
    assert "test Keywords: closer to gold by" in text and "retain Keywords: more kept by" in text
    assert "GA is not compared in world 5: a run of it" in text and "Not run yet: GradDiff, KL-Min, IDK." in text
    assert "(7 worlds)" in text and "| GA (7 of 8 worlds) |" in text
    assert (
        text.index("## Over worlds") < text.index("## Differences") < text.index("## World by world: forget Keywords ★")
    )
    assert "| Gold | 0.38 | 0.38 | 0.38 | 0.38 | 0.38 | 0.38 | 0.38 | 0.38 |" in text
    assert "| Stranger | 1.00 | 0.00 | 1.00 | 0.00 |" in text and "8 worlds can show" not in text
    assert "With 3 rivals no fewer than 7 worlds" in text and "- commit: 0123456789abcdef" in text
    assert "| ViKeR | **0.000** |" in text and "**0.375**" not in text, "GA lacks a world and takes no place"
    assert "| ViKeR | 8 | 100 | 1024 |" in text, "cost is a mean over worlds"


def test_html_terminal_and_figures(made, tmp_path):
    table, results, _ = made
    page = (results / "worlds-mini.html").read_text()
    for said in ("Differences from ViKeR: people to forget", "World by world: retain Keywords", "every world</title>"):
        assert said in page
    assert page.count("<svg") < 20 and 'id="block-1"' not in page and "**" not in page
    for width in (80, 240):
        console = Console(width=width, file=io.StringIO())
        for block in summary(table, width):
            console.print(block)
        shown = console.file.getvalue()
        assert "Keywords" in shown and "from gold" in shown and "0.500 ≠" in shown
    assert "≠ differs from ViKeR over worlds" in legend(table) and "GA is not compared in world 5" in legend(table)
    drawn = {file.stem: file.read_text() for file in draw_figures(table, tmp_path)}
    assert {"worlds-mini", "worlds-mini-trade-off"} < set(drawn)
    assert "test Keywords ★" in drawn["worlds-mini"] and "Gold, other seed" in drawn["worlds-mini"]
    assert "well formed" not in drawn["worlds-mini"].lower(), "was not measured"


@pytest.mark.extended
def test_a_world_without_a_gold_model_or_some_seeds_is_left_out(tmp_path):
    grid = read_grid(FILE, "mini", 2)
    for cell in grid.cells(tmp_path / "runs"):
        missing = [("Gold, other seed", "2", 1), ("ViKeR", "6", 1)]
        if (
            cell.row in ("Gold", "Gold, other seed", "NPO", "ViKeR")
            and (cell.row, cell.block, cell.seed) not in missing
        ):
            finish(cell, TOLD[cell.row])
    tabulate(grid, tmp_path / "runs", tmp_path)
    record = json.loads((tmp_path / "worlds-mini.json").read_text())
    assert record["left_out"] == {"NPO": ["2", "6"], "ViKeR": ["2", "6"]}
    assert record["differences"]["test/keyword_match"]["NPO"]["worlds"] == list("013457")


def test_nothing_was_run(tmp_path):
    table = tabulate(read_grid(FILE, "mini", 1), tmp_path / "runs", tmp_path / "results")
    assert "72 of 72 runs are not finished." in (tmp_path / "results/worlds-mini.md").read_text()
    assert draw_figures(table, tmp_path) == [] and len(summary(table, 80)) == 1
    assert json.loads((tmp_path / "results/worlds-mini.json").read_text())["methods"] == []


def test_rows_are_chosen_with_what_they_are_compared_with(tmp_path, capsys):
    found = read_grid(FILE, "mini", 1)
    assert rows_to_run(FILE, found, ["NPO"]) == {"NPO", "ViKeR", "Gold", "Gold, other seed"}
    with pytest.raises(UserError) as error:
        rows_to_run(FILE, found, ["NPO", "Strangr"])
    assert str(error.value) == "experiments/worlds.yaml, --rows: no row 'Strangr'; did you mean 'Stranger'?"
    place = ["--scale=mini", "--seeds=1", f"--runs={tmp_path}"]
    main(["list", str(FILE), *place, "--rows", "NPO", "Stranger"])
    chosen = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    main(["list", str(FILE), *place])
    every = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(chosen) == 8 * 5 and [every[int(line[0])] for line in chosen] == chosen, "numbers stay"
    with pytest.raises(SystemExit, match="--rows: found with slurm, expected run or list"):
        main(["slurm", str(FILE), *place, "--rows", "NPO"])


@pytest.mark.extended
def test_a_row_left_out_keeps_its_cells(made, tmp_path, monkeypatch, capsys):
    """What is finished is shown, whatever is to be run."""
    ran = []
    monkeypatch.setattr("viker_lightning.grids.__main__.run_jobs", lambda cells, *_: ran.extend(cells) or [])
    runs = made[0].runs[0][0].folder.parent
    main(["run", str(FILE), "--scale=mini", "--seeds=1", f"--runs={runs}", f"--results={tmp_path}", "--rows", "IDK"])
    assert {cell.row for cell in ran} == {"IDK", "ViKeR", "Gold", "Gold, other seed"} and len(ran) == 32
    assert json.loads((tmp_path / "worlds-mini.json").read_text())["methods"] == ["GA", "NPO", "ViKeR", "Stranger"]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda m: m.update(worlds="yes"), "worlds: found 'yes', expected true or false"),
        (lambda m: m["blocks"]["3"].clear(), "blocks.3.data.root: found none; a world has a root of its own"),
        (
            lambda m: m["blocks"]["3"].update({"data.root": "mini/default@1"}),
            "blocks.3.data.root: found 'mini/default@1', as in block '1'; a world has a root of its own",
        ),
        (lambda m: m.pop("blocks"), "worlds: found no blocks, expected one a world"),
        (lambda m: m["rows"].pop("Vanilla"), "worlds: no 'before'; worlds need a gold row, a vanilla row"),
        (lambda m: m["rows"].pop("Gold, other seed"), "worlds: no 'again'; worlds need a gold row"),
    ],
)
def test_what_is_no_grid_of_worlds_is_named(tmp_path, change, said):
    found = yaml.safe_load(FILE.read_text())
    change(found["scales"]["mini"])
    file = tmp_path / "worlds.yaml"
    file.write_text(yaml.safe_dump(found, sort_keys=False))
    with pytest.raises(UserError) as error:
        read_grid(file, "mini", 1)
    assert str(error.value).startswith(f"{file}, scales.mini.") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_worlds_are_as_they_were_declared():
    """0 to 7 are reported; 100 and up are for tuning alone."""
    found = read_grid(FILE, "mini", 1)
    assert found.worlds and {n: one["data.root"] for n, one in found.blocks.items()} == {
        str(n): f"mini/default@{n}" for n in range(8)
    }
    assert found.reference == "ViKeR" and len(found.cells(Path("runs"))) == 8 * 9
