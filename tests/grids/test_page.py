"""What a table says besides its numbers: key tokens, cost, answers, a page of its own."""

import io
import json
from math import comb
from pathlib import Path

import pytest
from rich.console import Console

from support.grids import ROWS, finish, small_grid, tabulate
from viker_lightning.grids import read_grid
from viker_lightning.grids.tables import Table, draw_figures, legend, summary
from viker_lightning.grids.tables.measurements import costs, key_tokens

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A grid with two seeds, all of it finished but NPO at 10 %."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        grid = read_grid(small_grid(folder), "mini", 2)
        for cell in grid.cells(folder / "runs"):
            if (cell.row, cell.block) != ("NPO", "10 %"):
                finish(cell, told=cell.row == "NPO", key_tokens=cell.row == "ViKeR")
                (cell.folder / "report.html").touch()
        return tabulate(grid, folder / "runs", folder / "results"), folder / "results"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_key_tokens_are_means_over_seeds_and_steps(made):
    found = key_tokens(made[0])
    assert [(fact["block"], fact["row"], fact["runs"]) for fact in found] == [("5 %", "ViKeR", 2), ("10 %", "ViKeR", 2)]
    assert found[0]["auroc"] == pytest.approx(0.925) and found[0]["auroc_first"] == 0.8
    assert found[0]["gradient_weight_key"] == 0.5 and found[0]["gradient_weight_other"] == 0.05


def test_costs_are_means_over_seeds(made):
    found = {(fact["block"], fact["row"]): fact for fact in costs(made[0])}
    assert set(found) == {("5 %", row) for row in ("Gold", "NPO", "ViKeR")} | {("10 %", "Gold"), ("10 %", "ViKeR")}
    assert found["5 %", "ViKeR"]["seconds"] == 110 and found["5 %", "Gold"]["seconds"] == 100
    assert found["5 %", "ViKeR"]["peak_memory_mib"] == 1024


@pytest.mark.extended
def test_gpu_memory_where_it_was_measured(tmp_path):
    grid = read_grid(small_grid(tmp_path), "mini", 1)
    for cell in grid.cells(tmp_path / "runs"):
        finish(cell)
        if cell.row == "ViKeR":
            file = cell.folder / "provenance.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"peak_gpu_memory_bytes": 3 * 2**30}))
    table = tabulate(grid, tmp_path / "runs", tmp_path)
    assert [fact.get("peak_gpu_memory_mib") for fact in costs(table)] == [None, None, 3072] * 2
    text = (tmp_path / "small-mini.md").read_text()
    assert "| 5 %, ViKeR | 1 | 100 | 1024 | 3072 |" in text and "| 5 %, NPO | 1 | 100 | 1024 |  |" in text
    assert "peak GPU memory, MiB" in (tmp_path / "small-mini.html").read_text()
    (drawn,) = (file for file in draw_figures(table, tmp_path) if "cost" in file.stem)
    assert "peak GPU memory" in drawn.read_text()


def test_both_are_in_markdown_and_json(made):
    text = (made[1] / "small-mini.md").read_text()
    assert "## Key tokens" in text and "| 5 %, ViKeR | 2 | 0.925 | 0.800 | 2.000 | 0.010 | 0.500 | 0.050 |" in text
    assert "## Run time and memory" in text and "| 5 %, ViKeR | 2 | 110 | 1024 |" in text
    assert "peak GPU" not in text
    record = json.loads((made[1] / "small-mini.json").read_text())
    assert record["key_tokens"] == key_tokens(made[0]) and record["costs"] == costs(made[0])


def test_figures_of_both(made, tmp_path):
    drawn = {file.stem: file.read_text() for file in draw_figures(made[0], tmp_path)}
    assert set(drawn) == {"small-mini-trade-off", "small-mini-cost", "small-mini-key-tokens"}
    for said in ("5 %, ViKeR", "AUROC", "gradient weight", "entropy"):
        assert said in drawn["small-mini-key-tokens"]
    assert "5 %, Gold" in drawn["small-mini-cost"]


def test_page_has_every_part(made):
    page = (made[1] / "small-mini.html").read_text()
    assert "Made &lt;b&gt;by hand&lt;/b&gt;." in page and "<b>by hand" not in page
    assert "Not run yet: NPO" in page and "9 of 11" not in page and "8 of 10 runs are finished" in page
    for said in (
        "near gold is good (★, as on forget and test)",
        "VL-Eraser",
        "2 settings",
        "<td>0.250</td><td>0.125</td><td>0.125</td>",
        "python -m viker_lightning fit",
        "Run time and memory",
    ):
        assert said in page, said
    asked = page[page.index('id="answers"') : page.index('id="published"')]
    for name in ("Vanilla", "★ Gold", "NPO", "ViKeR"):
        assert f"<dt>{name}</dt>" in asked
    assert "Picture of 001" in asked and 'aria-label="forget person 001"' in asked
    assert asked.count("Runs of seed 0.") == 2 and "Seeds:" not in asked


def test_page_says_whose_answers_are_of_another_seed(tmp_path):
    """Answers are those of a row's first finished run."""
    grid = read_grid(small_grid(tmp_path), "mini", 2)
    for cell in grid.cells(tmp_path / "runs"):
        if cell.block == "5 %" and (cell.row, cell.seed) != ("NPO", 0):
            finish(cell)
    tabulate(grid, tmp_path / "runs", tmp_path)
    page = (tmp_path / "small-mini.html").read_text()
    assert "Seeds: Vanilla 0, Gold 0, NPO 1, ViKeR 0." in page and "Runs of seed" not in page


def test_page_of_a_sweep_and_of_nothing(tmp_path):
    grid = read_grid(Path("experiments/k.yaml"), "mini", 1)
    tabulate(grid, tmp_path / "none", tmp_path)
    assert "0 of 8 runs are finished" in (tmp_path / "k-mini.html").read_text()
    for cell in grid.cells(tmp_path / "runs"):
        finish(cell, kept=4 - (cell.row == "k = 1"))
    tabulate(grid, tmp_path / "runs", tmp_path)
    page = (tmp_path / "k-mini.html").read_text()
    assert "Scores over k, number of irrelevant images" in page and "test: keyword match" in page
    assert 'id="published"' not in page and "What is forgotten against" not in page


def test_page_shows_tokens_curves_and_where_numbers_are_from(made):
    page = (made[1] / "small-mini.html").read_text()
    assert 'id="tokens"' in page and page.count("The ideal distribution would say:") == 6, "two answers of three tokens"
    assert (
        page.count("Training curve: KL to ideal, 5 %") and page.count("Regulariser gradient by token type, 10 %") == 1
    )
    assert "Gradient weight on key and on other tokens, 5 % ViKeR" in page
    assert "<dt>commit</dt><dd>0123456789abcdef</dd>" in page and "<dt>torch</dt><dd>2.6</dd>" in page
    run = next(cell for cell, _ in made[0].runs if (cell.block, cell.row, cell.seed) == ("5 %", "ViKeR", 0))
    assert f'<a href="../runs/{run.folder.name}/report.html">5 % / ViKeR / seed 0</a>' in page
    record = json.loads((made[1] / "small-mini.json").read_text())
    assert record["made_with"]["commit"] == ["0123456789abcdef"] and record["made_with"]["data, 5 %"] == ["abc"]
    text = (made[1] / "small-mini.md").read_text()
    assert "- torch: 2.6\n" in text and "- threads: 2\n" in text
    drawn = [f"scenes (k = 5, seed {seed})" for seed in range(made[0].grid.seeds)]
    assert f"- irrelevant images: {', '.join(drawn)}\n" in text


def test_few_people_have_no_intervals_and_show_no_difference(made):
    asked = "People, at most: forget 4, test 4, retain 4. Intervals: none for forget, test, retain (under 20 people)."
    assert asked in (made[1] / "small-mini.md").read_text()
    assert (made[1] / "small-mini.html").read_text().count(asked) == 2
    value = made[0].value("5 %", "NPO", "forget", "keyword_match")
    assert (value["people"], value["low"], value["high"], value["rank"]) == (4, None, None, "second")
    assert value["p"] == 2 / 2**4 and made[0].value("5 %", "ViKeR", "forget", "keyword_match")["p"] is None


def test_reference_and_test_are_named_everywhere(made):
    for kind in ("md", "html", "json"):
        text = (made[1] / f"small-mini.{kind}").read_text()
        assert "differs from ViKeR, which was named in advance, at 5 %: exact sign-flip test" in text, kind
        assert "With 1 rival in it no fewer than 6 people can show a difference" in text and "†" not in text, kind
    assert json.loads((made[1] / "small-mini.json").read_text())["reference"] == "ViKeR"


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """A grid about twenty people, with gold once more: gold tells one or two of four, NPO two or three, ViKeR none."""
    folder = tmp_path_factory.mktemp("twenty")
    rows = ROWS | {"Gold, other seed": {"again": "Gold"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        columns = {s: {"keyword_match": "Keywords"} for s in ("forget", "retain")}
        columns |= {"test": {"keyword_match": "Keywords", "kl_gold": "KL to gold", "coherence": "Coherence"}}
        file = small_grid(folder, columns=columns, rows=rows)
        grid = read_grid(file, "mini", 1)
        for cell in grid.cells(folder / "runs"):
            told = {"Gold": 1, "Gold, other seed": 1, "NPO": 2, "ViKeR": 0}[cell.row]
            finish(cell, told, 4 - (cell.row == "ViKeR"), key_tokens=cell.row == "ViKeR", people=20)
        return tabulate(grid, folder / "runs", folder / "results"), folder / "results", grid.cells(folder / "runs")


def test_best_is_near_gold_and_differences_are_marked(twenty):
    table, results, _ = twenty
    cells = {n: table.value("5 %", n, "test", "keyword_match") for n in ("Gold", "Gold, other seed", "NPO", "ViKeR")}
    assert [round(cells[name]["to_gold"], 3) for name in cells] == [0, 0, 0.25, 0.375]
    assert [cells[name]["rank"] for name in cells] == ["", "", "best", "second"], "ViKeR tells least"
    ways = [(comb(10, i) * comb(10, j), (2 * i - 10) / 2 + 3 * (2 * j - 10) / 4) for i in range(11) for j in range(11)]
    swapped = sum(count for count, difference in ways if abs(difference) >= 20 * abs(0.625 + 0 - 2 * 0.375))
    assert cells["NPO"]["p"] == pytest.approx(swapped / 2**20, abs=1e-6), "NPO tells .5 or .75, ViKeR 0, gold .375"
    kept = table.value("5 %", "NPO", "retain", "keyword_match")
    assert (
        kept["rank"] == "best" and kept["p"] == pytest.approx(2 / 2**10, abs=1e-6) and kept["low"] == kept["high"] == 1
    )
    forgotten = table.value("5 %", "NPO", "forget", "keyword_match")
    text = (results / "small-mini.md").read_text()
    assert "| forget Keywords ★ | retain Keywords ↑ | test Keywords ★ | test KL to gold ↓ | test Coherence ↑ |" in text
    assert f"**{forgotten['mean']:.2f}**" in text
    assert f"[{cells['NPO']['low']:.2f}, {cells['NPO']['high']:.2f}]" in text
    assert "People, at most: forget 20, retain 20, test 20.\n" in text, "enough for intervals"


def test_floor_and_doing_nothing_stand_beside_the_divergence_of_methods(twenty):
    """Gold of another seed is compared with gold, and the vanilla row shows what it was before."""
    table, results, _ = twenty
    text = (results / "small-mini.md").read_text()
    rows = {line.split(" | ")[0]: line.split(" | ") for line in reversed(text.splitlines())}
    assert {name: rows[f"| {name}"][4][:4] for name in ("Vanilla", "Gold, other seed", "NPO")} == {
        "Vanilla": "0.70",
        "Gold, other seed": "0.50",
        "NPO": "**0.",
    }
    assert "★ Gold, other seed" in (results / "small-mini.html").read_text()
    again = next(cell for cell in twenty[2] if cell.row == "Gold, other seed")
    gold = next(cell for cell in twenty[2] if cell.row == "Gold")
    assert (again.seed, again.options["evaluation.gold"]) == (1, str(gold.folder))
    assert again.config == gold.config and again.options["seed_everything"] == 1
    (drawn,) = (file for file in draw_figures(table, results) if "trade-off" in file.stem)
    assert "Gold, other seed" in drawn.read_text() and "near gold is good" in drawn.read_text()


def test_gold_is_judged_by_the_vanilla_model(twenty):
    """As the methods are; a gold model trained in full has no judge of its own."""
    golds = [cell for cell in twenty[2] if cell.row.startswith("Gold")]
    assert len(golds) == 4
    assert {cell.options["evaluation.judge"] for cell in golds} == {"configs/mini/vanilla.yaml"}
    assert not any("evaluation.judge" in cell.options for cell in twenty[2] if cell not in golds)


def test_intervals_and_published_numbers_are_written(made, twenty):
    text, value = (twenty[1] / "small-mini.md").read_text(), twenty[0].value("5 %", "NPO", "forget", "keyword_match")
    assert value["low"] < value["high"]
    assert f"**{value['mean']:.2f}** [{value['low']:.2f}, {value['high']:.2f}]" in text
    text = (made[1] / "small-mini.md").read_text()
    assert "## Published: VL-Eraser" in text and "| NPO | 0.419 | 0.421 | 0.510 | 0.415 | 0.174 | 0.218 |" in text


def test_a_row_of_which_seeds_are_missing_says_so_and_takes_no_place(tmp_path):
    grid = read_grid(small_grid(tmp_path), "mini", 2)
    for cell in grid.cells(tmp_path / "runs"):
        if (cell.row, cell.seed) != ("NPO", 1):
            finish(cell)
    table = tabulate(grid, tmp_path / "runs", tmp_path)
    assert table.value("5 %", "NPO", "forget", "keyword_match")["rank"] == ""
    for kind, said in (("md", "| NPO (1 of 2 seeds) |"), ("html", "(1 of 2 seeds)")):
        assert said in (tmp_path / f"small-mini.{kind}").read_text()
    assert "ViKeR (" not in (tmp_path / "small-mini.md").read_text()


@pytest.mark.extended
@pytest.mark.parametrize(("width", "count"), [(80, 5), (240, 17)])
def test_summary_is_whole_at_any_width(tmp_path, width, count):
    """The shipped main table has 17 columns; a narrow terminal shows those that matter most, and cuts none."""
    grid = read_grid(Path("experiments/mllmu.yaml"), "mini", 1)
    for cell in grid.cells(tmp_path / "runs"):
        finish(cell, told=cell.row == "NPO")
    console = Console(width=width, file=io.StringIO())
    tables = summary(Table(grid, tmp_path / "runs"), width)
    assert len(tables) == 3 and {len(table.columns) for table in tables} == {1 + count}
    for table in tables:
        console.print(table)
    shown = console.file.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown and max(map(len, shown.splitlines())) <= width
    for said in ("forget", "Keywords ★", "retain", "Keywords ↑", "Coherence ↑", "ViKeR", "Gold", "forget 4"):
        assert said in shown
    assert "≠ differs from ViKeR" in legend(Table(grid, tmp_path / "runs"))
    assert len(summary(Table(grid, tmp_path / "runs"), 8)[0].columns) == 2, "one column, however narrow"
