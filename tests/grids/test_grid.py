"""Grids: what the shipped ones hold, and what is wrong with others."""

import itertools
from pathlib import Path

import pytest
import yaml

from support.commands import print_config
from support.marks import quick
from viker_lightning.errors import UserError
from viker_lightning.grids import read_grid
from viker_lightning.grids.__main__ import main
from viker_lightning.grids.cells import inputs
from viker_lightning.grids.grid import config_option
from viker_lightning.grids.tables.published_numbers import PAPER_NUMBERS, paper_numbers
from viker_lightning.grids.tuning.spaces import config_options
from viker_lightning.jobs.launch_files import slurm_script, sweep_file

ROOT = Path(__file__).parents[2]
GRIDS = ["mllmu", "clear", "ablations", "references", "lambda", "k"]
SCALES = [*itertools.product(GRIDS, ["mini", "paper"]), ("mllmu", "published"), ("clear", "published")]
OUT = Path("runs/tables")
PLACE = ["--scale=mini", "--seeds=2", "--runs=elsewhere"]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def grid(name, scale="mini", seeds=3):
    return read_grid(Path(f"experiments/{name}.yaml"), scale, seeds)


WORLDS = [(name, "mini") for name in ("worlds", "worlds_wider", "worlds_smol", "every_method")]


@pytest.mark.parametrize("name, scale", [*SCALES, *WORLDS])
def test_shipped_grids(name, scale):
    found = grid(name, scale)
    cells = found.cells(OUT)
    golds = {cell.folder for cell in cells if cell.row == "Gold"}
    again = [cell for cell in cells if cell.row == "Gold, other seed"]
    methods = [cell for cell in cells if not cell.row.startswith("Gold")]
    assert cells[0].row == "Gold" and len(methods) == 3 * len(found.blocks) * (len(found.rows) - 3)
    assert {cell.gold.folder for cell in methods} == {cell.gold.folder for cell in again} == golds
    assert len(again) == len(found.blocks) and found.reference in {cell.row for cell in methods}
    assert len({(cell.block, cell.row, cell.seed) for cell in cells}) == len(cells)
    for block in found.blocks:
        vanilla = found.cell(OUT, block, found.rows["Vanilla"].before, 0)
        assert vanilla in cells and vanilla.options.get("evaluation.before", True) is True


@pytest.mark.parametrize(
    "name, scale",
    quick(
        [*SCALES, ("demo", "mini"), *WORLDS[:-1], ("sequence", "mini")],
        [("demo", "mini")],
    ),
)
def test_every_command_is_understood(name, scale):
    seen = set()
    for cell in grid(name, scale, 1).cells(OUT):
        if (cell.row, cell.config, cell.previous is None) in seen:
            continue
        seen.add((cell.row, cell.config, cell.previous is None))
        assert print_config(cell.arguments)["trainer"]["default_root_dir"] == str(cell.folder)


def test_every_method_has_every_method():
    there = {path.name for path in Path("configs/mini").glob("*.yaml")} - {"base.yaml", "vanilla.yaml"}
    assert {Path(row.config).name for row in grid("every_method").rows.values() if row.config} == there


@pytest.mark.parametrize("method", ["vanilla", "gold", "npo", "viker", "stranger"])
def test_the_wider_model_has_the_settings_of_the_smaller(method):
    """But for the learning rate, and the steps of vanilla and gold."""
    of = {size: config_options(Path(f"configs/{size}/{method}.yaml")) for size in ("mini", "wider")}
    for found in of.values():
        del found["trainer.default_root_dir"], found["model.lr"]
        if method in ("vanilla", "gold"):
            del found["trainer.max_steps"], found["model.base"]
        else:
            del found["model.vanilla"]
    assert of["wider"] == of["mini"]


@pytest.mark.parametrize("name, scale", [pair for pair in SCALES if pair[1] != "published"])
def test_irrelevant_images_are_drawn_anew_with_each_seed(name, scale):
    """Not so for models that draw none."""
    for cell in grid(name, scale).cells(OUT):
        draws = cell.row not in ("Gold", "Gold, other seed")
        assert ("--model.seed=null" in cell.arguments) == draws == ("model.seed=null" in cell.command)


def test_a_grid_without_gold_has_all_its_options(tmp_path):
    """Those of the scale and of the block; a gold model has no use for some of them, but here is none."""
    scale = {"note": "", "options": {"model.lr": 0.5}, "rows": {"GA": {"config": "configs/mini/gradient_ascent.yaml"}}}
    scale["blocks"] = {"a": {"trainer.max_steps": 3}}
    file = tmp_path / "own.yaml"
    columns = {"forget": {"accuracy": "MC"}}
    file.write_text(yaml.safe_dump({"title": "Own", "columns": columns, "scales": {"mini": scale}}))
    (cell,) = read_grid(file, "mini", 1).cells(OUT)
    assert (cell.options["model.lr"], cell.options["trainer.max_steps"]) == (0.5, 3)


def test_gold_is_measured_as_the_methods_are(tmp_path, monkeypatch):
    """Or a score of one's own would have no gold to be compared with."""
    monkeypatch.syspath_prepend(tmp_path)
    score = "Score(name='words', about='number of words', values=lambda p: [1.0])"
    (tmp_path / "words_of_mine.py").write_text(f"from viker_lightning.metrics import Score\nWORDS = {score}\n")
    content = yaml.safe_load(Path("experiments/k.yaml").read_text())
    own = {"evaluation.scores": ["words_of_mine.WORDS"], "evaluation.judge": "me", "evaluation.max_new_tokens": 9}
    content["scales"]["mini"]["options"] |= {**own, "evaluation.selection.by": "loss", "evaluation.stop": 0.2}
    content["columns"] = {"forget": {"words": "Words"}}
    (tmp_path / "k.yaml").write_text(yaml.safe_dump(content))
    cells = read_grid(tmp_path / "k.yaml", "mini", 1).cells(OUT)
    for cell in (cell for cell in cells if cell.row.startswith("Gold")):
        asked = {key: value for key, value in cell.options.items() if key.startswith("evaluation.")}
        assert asked == own | {key: asked[key] for key in ("evaluation.gold",) if cell.gold}


def test_the_same_run_is_made_once():
    cells = {name: grid(name).cells(OUT) for name in GRIDS}
    gold = {c.folder for name in ("ablations", "references", "lambda", "k") for c in cells[name] if c.row == "Gold"}
    assert len(gold) == 1
    assert gold < {c.folder for c in cells["mllmu"] if c.row == "Gold"}
    shared = {c.folder for c in cells["ablations"] if c.row == "ViKeR" and c.block == "with retain data"}
    assert shared == {c.folder for c in cells["mllmu"] if c.row == "ViKeR" and c.block == "10 %"}
    later = {c.folder for c in cells["mllmu"] if c.row == "ViKeR" and c.block == "10 %" and c.seed}
    assert later == {c.folder for c in cells["k"] if c.row == "k = 10" and c.seed}, "what ViKeR's YAML has"


def test_published_npo_is_given_the_gold_model_of_its_ratio():
    cells = grid("mllmu", "published").cells(OUT)
    for cell in (cell for cell in cells if cell.row == "NPO"):
        assert cell.options["model.method.gold"] == cell.options["evaluation.gold"] == str(cell.gold.folder)
        assert cell.gold.options["trainer.max_epochs"] == 1  # baselines/README.md
    assert len({cell.gold.folder for cell in cells if cell.row == "NPO"}) == 3


def test_options_that_change_nothing_are_left_out():
    assert config_option("configs/mini/viker.yaml", "model.method.lam") == 8.19
    assert config_option("configs/mini/viker.yaml", "data.forget") == 10
    assert config_option("configs/mini/viker.yaml", "data.max_people") is None
    assert config_option("configs/mini/viker.yaml", "model.method.images.none") is None
    command = next(c for c in grid("mllmu").cells(OUT) if c.row == "ViKeR" and c.block == "10 %").command
    assert "--data.root" not in command and "--data.forget" not in command and "--data.max_people=12" in command


@pytest.mark.parametrize("row", ["GA", "GradDiff", "KL-Min", "NPO", "IDK", "ViKeR", "Stranger"])
def test_clear_has_the_settings_that_were_tuned(row):
    """Its methods are options of one YAML, whose own settings would be carried over if they were not set."""
    found = {}
    for name in ("clear", "mllmu"):
        cell = next(c for c in grid(name).cells(OUT) if (c.row, c.seed) == (row, 0))
        config = print_config(cell.arguments)
        init = config["model"]["init_args"]
        found[name] = [init["method"], init["lr"], init["lora"], config["trainer"]["max_steps"]]
    assert found["clear"] == found["mllmu"]


def test_published_numbers_are_between_0_and_1():
    for section in ("mllmu", "clear"):
        for source in paper_numbers(section, PAPER_NUMBERS):
            values = [v for rows in source.blocks.values() for row in rows.values() for v in row]
            assert values and all(0 <= v <= 1 for v in values) and source.second_hand
    source = paper_numbers("mllmu", PAPER_NUMBERS)[0]
    assert source.value("5 %", "NPO", "forget/rouge_l") == 0.510
    assert source.value("5 %", "NPO", "real/rouge_l") is None and source.value("10 %", "NPO", "forget/rouge_l") is None


def test_published_numbers_are_not_there(tmp_path):
    with pytest.raises(UserError, match="no section 'umu'; found mllmu, clear"):
        paper_numbers("umu", PAPER_NUMBERS)
    with pytest.raises(UserError, match="does not exist; run from the repository"):
        paper_numbers("mllmu", tmp_path / "none.yaml")


def spoilt(tmp_path, change):
    found = yaml.safe_load(Path("experiments/ablations.yaml").read_text())
    change(found)
    file = tmp_path / "spoilt.yaml"
    file.write_text(yaml.safe_dump(found))
    with pytest.raises(UserError) as error:
        read_grid(file, "mini", 1)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda g: g.pop("title"), "'title' is missing"),
        (lambda g: g.update(colums={}), "'colums' is unknown"),
        (lambda g: g["scales"].pop("mini"), "no scale 'mini'; found paper"),
        (lambda g: g["scales"]["mini"].update(gold="Golden"), "gold: no row 'Golden'"),
        (
            lambda g: g["scales"]["mini"].update(reference="NPO"),
            "scales.mini.reference: no method 'NPO'; found ViKeR, without",
        ),
        (lambda g: g["scales"]["mini"].update(reference="Gold"), "scales.mini.reference: no method 'Gold'"),
        (
            lambda g: g["scales"]["mini"]["rows"].update({"Gold, other seed": {"again": "ViKeR"}}),
            "rows.Gold, other seed.again: found 'ViKeR', expected the gold row, which stands above it",
        ),
        (lambda g: g["scales"]["mini"]["rows"].update(GA={"config": "no.yaml"}), "rows.GA.config: 'no.yaml'"),
        (
            lambda g: g["scales"]["mini"]["rows"].update(GA={"options": {"model.vanilla": "nope.yaml"}}),
            "scales.mini.rows.GA: model.vanilla 'nope.yaml' does not exist",
        ),
        (lambda g: g["scales"]["mini"]["rows"].update(V={"before": "X"}), "rows.V.before: no row 'X'"),
        (lambda g: g["scales"]["mini"]["rows"].update(GA={"option": {}}), "rows.GA: key 'option' is unknown"),
        (lambda g: g.update(scales=["mini"]), "scales: found ['mini'], expected 'name: value' pairs"),
        (lambda g: g.update(columns=["forget"]), "columns: found ['forget']"),
        (lambda g: g["columns"].update(forget="rouge_l"), "columns.forget: found 'rouge_l'"),
        (lambda g: g["columns"].update(tests={}), "columns: no split 'tests'; did you mean 'test'?"),
        (lambda g: g["columns"].update(real={"keyword_mach": "K"}), "columns.real: no score 'keyword_mach'; did you m"),
        (lambda g: g["columns"].update(real={"?": "K"}), "no score '?'; there are keyword_match, keyword_match_whole"),
        (lambda g: g["scales"]["mini"].update(blocks=["a", "b"]), "scales.mini.blocks: found ['a', 'b']"),
        (lambda g: g["scales"]["mini"].update(blocks={"a": None}), "scales.mini.blocks.a: found None"),
        (lambda g: g["scales"]["mini"].update(options="data.forget=5"), "scales.mini.options: found 'data.forget=5'"),
        (lambda g: g["scales"]["mini"].update(rows=["GA"]), "scales.mini.rows: found ['GA']"),
        (lambda g: g["scales"]["mini"]["rows"].update(GA={"options": [1]}), "rows.GA.options: found [1]"),
        (lambda g: g["scales"]["mini"].update(tuning="nope.json"), "scales.mini.tuning: 'nope.json' does not exist"),
        (lambda g: g.update(figure="trade-off"), "figure: found 'trade-off', expected 'name: value' pairs"),
        (lambda g: g.update(figure={"label": "k", "y": []}), "figure: key 'x' is missing"),
        (
            lambda g: g.update(figure={"label": "", "x": {"VikeR": 1}, "y": []}),
            "x: no row 'VikeR'; did you mean 'ViKeR'",
        ),
        (lambda g: g.update(figure={"label": "", "x": {"ViKeR": "a"}, "y": []}), "figure.x.ViKeR: found 'a'"),
        (lambda g: g.update(figure={"label": "", "x": {}, "y": "forget/cloze"}), "figure.y: found 'forget/cloze'"),
        (lambda g: g.update(figure={"label": "", "x": {}, "y": ["forget/clozes"]}), "figure.y: no score 'clozes'"),
        (lambda g: g.update(title=5), "title: found 5, expected a text"),
        (lambda g: g["columns"].update(real={"accuracy": 5}), "columns.real.accuracy: found 5, expected a text"),
        *(
            (
                lambda g, key=key, value=value: g["scales"]["mini"].update({key: value}),
                f"scales.mini.{key}: found {said}",
            )
            for key, value, said in (
                ("rows", {}, "none, expected one at least"),
                ("blocks", {}, "none, expected one at least"),
                ("config", 5, "5, expected a text"),
                ("tuning", 5, "5, expected a text"),
                ("gold", ["GA"], "['GA'], expected a text"),
                ("options", {5: 1}, "5 as a name, expected that of an option"),
            )
        ),
        *(
            (lambda g, row=row: g["scales"]["mini"]["rows"].update(GA=row), f"rows.GA.{said}")
            for row, said in (
                ({"before": ["GA"]}, "before: found ['GA'], expected a text"),
                ({"before": "GA"}, "before: no row 'GA' that is trained; found "),
                ({"before": "Vanilla"}, "before: no row 'Vanilla' that is trained; found "),
                ({"config": ["a"]}, "config: found ['a'], expected a text"),
                ({"seeds": "two"}, "seeds: found 'two', expected a whole number, 1 or more"),
                ({"seeds": 0}, "seeds: found 0, expected a whole number, 1 or more"),
                ({"options": {5: 1}}, "options: found 5 as a name, expected that of an option"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, said):
    assert said in spoilt(tmp_path, change)


def test_a_name_that_occurs_twice(tmp_path):
    """In a grid, and in the YAML of a run, where the last one would count."""
    file = tmp_path / "k.yaml"
    file.write_text(Path("experiments/k.yaml").read_text() + "title: Again\n")
    with pytest.raises(UserError, match=r"k.yaml, line \d+: 'title' occurs twice, first in line \d+; keep one"):
        read_grid(file, "mini", 1)
    (tmp_path / "run.yaml").write_text("seed_everything: 0\nseed_everything: 1\n")
    for read in (
        lambda: config_option(str(tmp_path / "run.yaml"), "model.lr"),
        lambda: inputs(str(tmp_path / "run.yaml")),
    ):
        with pytest.raises(UserError, match=r"run.yaml, line 2: 'seed_everything' occurs twice"):
            read()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("title: A\n".encode("utf-16"), "byte 0 is not UTF-8; save the file as UTF-8 text"),
        (b"a: " + b"[" * 3000 + b"]" * 3000, "values are nested too deeply"),
        (b"a: [\n", "line 2, column 1: no YAML"),
        (b"title: 2001-99-99\n", "looks like a date and is none"),
        (b"- 1\n", "found a list, expected lines of 'name: value'"),
    ],
)
def test_what_is_no_yaml_is_named(tmp_path, content, line):
    (tmp_path / "k.yaml").write_bytes(content)
    for read in (
        lambda: read_grid(tmp_path / "k.yaml", "mini", 1),
        lambda: config_option(str(tmp_path / "k.yaml"), "model.lr"),
        lambda: inputs(str(tmp_path / "k.yaml")),
    ):
        with pytest.raises(UserError) as error:
            read()
        assert line in str(error.value) and "\n" not in str(error.value)


def test_missing_file_and_seeds(tmp_path):
    with pytest.raises(UserError, match="not a readable grid"):
        read_grid(tmp_path / "no.yaml", "mini", 1)
    with pytest.raises(UserError, match="seeds: found 0"):
        grid("k", seeds=0)


def test_sweep_and_array_reach_every_cell():
    found = yaml.safe_load(sweep_file("experiments/k.yaml", PLACE, 9))
    assert found["parameters"]["number"]["values"] == list(range(9))
    assert found["command"][-1] == "${args}" and found["command"][-4:-1] == PLACE and "mini" in found["name"]
    script = slurm_script("experiments/k.yaml", PLACE, 9, 4)
    assert " --runs=elsewhere " in script
    assert "#SBATCH --array=0-8%4" in script and '--number="$SLURM_ARRAY_TASK_ID"' in script
    assert "#SBATCH --gpus=1\n" in script
    for command in ("slurm", "run"):
        with pytest.raises(SystemExit, match=r"^error: --jobs: found -4, expected 1 or more"):
            main([command, "experiments/demo.yaml", "--scale=mini", "--jobs=-4"])
    assert script.replace("#SBATCH --gpus=1\n", "") == slurm_script("experiments/k.yaml", PLACE, 9, 4, gpu=False)


def test_blocks_that_are_no_forget_ratios_are_groups_of_their_own():
    """W&B averages the runs of a group, method and ratio."""
    groups = {cell.grid for cell in grid("ablations").cells(OUT)}
    assert groups == {"ablations-mini, with retain data", "ablations-mini, forget data alone"}
    assert {cell.grid for cell in grid("mllmu").cells(OUT)} == {"mllmu-mini"}
