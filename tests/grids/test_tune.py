"""Tuning: what a setting is worth, where it lies in its space, and that a tuning goes on where it stopped."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from support import forked
from viker_lightning import methods
from viker_lightning.errors import UserError
from viker_lightning.grids.grid import config_option
from viker_lightning.grids.tuning import tune as tuning
from viker_lightning.grids.tuning.closeness import Models, closeness, needed
from viker_lightning.grids.tuning.page import front_figure
from viker_lightning.grids.tuning.spaces import Choices, Range, as_json, config_options, drawn_from, read_spaces
from viker_lightning.grids.tuning.tune import main, open_study, tried
from viker_lightning.grids.tuning.tuning_record import read_tuning, settings_tried
from viker_lightning.metrics.statistics.fronts import hypervolume, least_within, pareto_front
from viker_lightning.storage.files import write_json

SPACES = Path("experiments/tuning/spaces.yaml")


def numbers(forgotten, kept, fluent=1.0, kl=0.0):
    """Scores of a model: what it knows of people to forget and of others."""
    of_forgotten = {"keyword_match": forgotten, "accuracy": forgotten, "well_formed": fluent, "kl_gold": kl}
    of_kept = {"keyword_match": kept, "accuracy": kept}
    return {"forget": of_forgotten, "test": of_forgotten, "retain": of_kept, "real": of_kept}


WORLD = Models(vanilla=numbers(1.0, 0.9, kl=2.0), gold=numbers(0.2, 0.8, fluent=0.9), floor=numbers(0.3, 0.8, kl=0.5))


def test_what_is_wanted_costs_nothing():
    assert closeness(numbers(0.2, 0.9, fluent=0.9, kl=0.5), WORLD).score == 0


def test_vanilla_has_forgotten_nothing_and_lost_nothing():
    found = closeness(WORLD.vanilla, WORLD)
    assert found.forgetting == pytest.approx((0.8 + 0.8 + 0 + 1 - math.exp(-1.5)) / 4) and found.retention == 0


def test_each_part_of_the_score():
    model = {
        "forget": {"keyword_match": 0.1, "accuracy": 0.6, "well_formed": 0.4, "kl_gold": 0.5 + math.log(2)},
        "test": {"keyword_match": 0.2, "accuracy": 0.2, "well_formed": 1.0, "kl_gold": 0.1},
        "retain": {"keyword_match": 0.5, "accuracy": 1.0},
        "real": {"keyword_match": 0.9, "accuracy": 0.7},
    }
    found = closeness(model, WORLD)
    assert found.forgetting == pytest.approx((0.1 + 0.4 + 0.5 + 0.5) / 8)
    assert found.retention == pytest.approx((0.4 + 0.2) / 4)
    assert found.score == pytest.approx(found.forgetting + found.retention)


@pytest.mark.parametrize("one", ["keyword_match", "accuracy"])
def test_nothing_is_paid_for_going_below_gold(one):
    below, at = numbers(0.2, 0.9, kl=0.5), numbers(0.2, 0.9, kl=0.5)
    below["test"] = below["test"] | {one: 0.0}
    assert closeness(below, WORLD).forgetting == pytest.approx(closeness(at, WORLD).forgetting + 0.2 / 8)


def test_a_missing_score_is_named():
    with pytest.raises(UserError, match=r"^somewhere: no test/well_formed; tune on an embedded benchmark"):
        needed(numbers(0, 1) | {"test": {"keyword_match": 0.0, "accuracy": 0.0}}, "somewhere")
    assert "kl_gold" not in needed(numbers(0, 1), "gold", leave_out="kl_gold")["forget"]


@pytest.mark.parametrize(
    ("values", "value", "edge"),
    [
        (Range(0, 100), 5, "low"),
        (Range(0, 100), 5.1, ""),
        (Range(0, 100), 95, "high"),
        (Range(1, 10000, log=True), 1.5, "low"),
        (Range(1, 10000, log=True), 500, ""),
        (Range(1, 10000, log=True), 9000, "high"),
        (Range(20, 150, log=True, int=True), 20, "low"),
        (Choices((1, 5, 20)), 1, "low"),
        (Choices((1, 5, 20)), 5, ""),
        (Choices((1, 5, 20)), 20, "high"),
        (Choices(("scenes", "pets")), "scenes", ""),
        (Choices((False, True)), True, ""),
    ],
)
def test_where_a_value_lies(values, value, edge):
    assert values.edge(value) == edge


def test_a_front():
    points = [(3, 1), (1, 3), (2, 2), (3, 3), (2, 2), (1, 4)]
    assert pareto_front(points) == [(1, 3), (2, 2), (3, 1)] and pareto_front([]) == []
    assert hypervolume(points, (4, 4)) == 3 + 2 + 1
    assert hypervolume([(0, 0)], (0.5, 0.5)) == 0.25 and hypervolume([(4, 0), (0, 4)], (4, 4)) == 0
    assert hypervolume([(1, 3), (5, 0)], (4, 4)) == 3 and hypervolume([], (1, 1)) == 0
    assert least_within(points, 2) == 2 and least_within(points, 0.5) is None


FIXED = {"double": {"model.method.k", "model.method.doubles"}}
"""What makes a method what it is."""


def test_every_method_has_a_space_of_all_it_weighs():
    spaces = read_spaces(SPACES)
    there = {path.stem for path in spaces.configs.glob("*.yaml")} - {"base", "vanilla", "gold", "prompt"}
    assert set(spaces.methods) == there and spaces.worlds == [100, 101, 102, 103]
    for name, space in spaces.methods.items():
        weights = {
            option
            for option, value in config_options(spaces.configs / f"{name}.yaml").items()
            if option.startswith("model.method.") and isinstance(value, int | float)
        }
        named = yaml.safe_load((spaces.configs / f"{name}.yaml").read_text())["model"]["init_args"]["method"]
        steps = {"model.lr", "trainer.max_steps"} if getattr(methods, named["class_path"]).takes_steps else set()
        assert set(space) >= (weights | steps) - FIXED.get(name, set()), name


def changed(folder, edit):
    content = json.loads(json.dumps(yaml.safe_load(SPACES.read_text())))  # whose aliases are copies
    edit(content)
    (folder / "spaces.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "spaces.yaml"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s["methods"].update(nop={"model.lr": [1, 2]}), "methods: no YAML in configs/mini of 'nop'; did you"),
        (
            lambda s: s["methods"]["npo"].update({"model.method.bta": [1, 2]}),
            "methods.npo: no option in configs/mini/npo.yaml of 'model.method.bta'; did you mean 'model.method.beta'?",
        ),
        (
            lambda s: s["methods"]["npo"]["model.lr"].update(high="1e-2"),
            "model.lr.high: found '1e-2', expected a number",
        ),
        (lambda s: s["methods"]["npo"]["model.lr"].update(lgo=True), "model.lr: key 'lgo' is unknown"),
        (lambda s: s["methods"]["npo"]["model.lr"].update(low=0), "found low 0 and high 0.01, expected 0 < low < high"),
        (lambda s: s["methods"]["npo"].update({"model.lr": [2, 1]}), "expected numbers in rising order"),
        (lambda s: s["methods"]["npo"].update({"model.lr": [1]}), "expected two values at least"),
        (lambda s: s["methods"].update(npo={}), "methods.npo: found no option"),
        (
            lambda s: s.update(gold="mine.yaml"),
            "gold: mine.yaml does not exist; give the YAML of a run with",
        ),
        (lambda s: s.update(configs="docs", methods={"a": {}}), "gold: docs/gold.yaml does not exist"),
        (lambda s: s.update(worlds="100"), "worlds: found '100', expected a list"),
        (lambda s: s.update(worlds=[]), "worlds: found [], expected a list of whole numbers"),
        (lambda s: s.update(root=5), "root: found 5, expected a text"),
        (lambda s: s["methods"]["npo"]["model.lr"].update(low=math.nan), "low: found nan, expected a number"),
        (lambda s: s["methods"]["npo"].update({"model.lr": [math.nan, 1]}), "found [nan, 1], expected two values at l"),
        (
            lambda s: s["methods"]["npo"]["trainer.max_steps"].update(low=1.5),
            "found low 1.5 and high 150, expected whole numbers",
        ),
    ],
)
def test_a_wrong_space_is_one_line(edit, said, tmp_path):
    with pytest.raises(UserError) as wrong:
        read_spaces(changed(tmp_path, edit))
    assert said in str(wrong.value) and "\n" not in str(wrong.value)
    assert str(wrong.value).startswith(str(tmp_path / "spaces.yaml"))


def test_a_misspelt_method_is_one_line(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["--methods", "npoo", f"--runs={tmp_path}"])
    assert str(stop.value) == f"error: {SPACES}, methods: no space of 'npoo'; did you mean 'npo'?"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A tuning of two methods whose runs are made up: the learning rate says what is forgotten, and what is lost."""

    def run_jobs(cells, jobs, console):
        failed = []
        for cell in cells:
            if cell.folder.exists():
                continue
            if bench.fail and bench.fail(cell):
                failed.append(cell)
                continue
            bench.runs.append((cell.row, cell.block))
            lr = cell.options.get("model.lr") or float(config_option(cell.config, "model.lr"))
            after = numbers(0.2 + 0.1 / (1 + 1000 * lr), 0.9 - 10 * lr, fluent=0.9, kl=0.6)
            after = {"gold": WORLD.gold, "gold, other seed": WORLD.floor}.get(cell.row, after)
            write_json(cell.folder / "results.json", {"before": WORLD.vanilla, "after": after})
        if bench.stop and len(bench.runs) > bench.stop:
            raise KeyboardInterrupt
        return failed

    monkeypatch.setattr(tuning.Cell, "complaint", lambda self: "error: no such luck")
    monkeypatch.setattr(tuning, "run_jobs", run_jobs)

    def tune(name, *options, stop=0, fail=None):
        bench.stop, bench.fail, bench.runs = stop, fail, []
        folder = tmp_path / name
        where = [f"--runs={folder / 'runs'}", f"--record={folder / 'mini.json'}", f"--results={folder / 'results'}"]
        main([*where, "--methods", "npo", "viker", "--worlds", "100", "101", *options])
        return read_tuning(folder / "mini.json")

    bench = SimpleNamespace(tune=tune, stop=0, runs=[], fail=None, folder=tmp_path)
    return bench


def drawn(record):
    return {name: [one["setting"] for one in found["trials"]] for name, found in record["methods"].items()}


def test_each_method_tries_as_many_settings_on_every_world(bench):
    record = bench.tune("one", "--trials=8")
    assert [len(found["trials"]) for found in record["methods"].values()] == [8, 8]
    models = [run for run in bench.runs if run[0].startswith(("gold", "one step"))]
    assert len(models) == len(set(models)) == 3 * 2 and len(bench.runs) == 6 + 2 * 8 * 2
    npo = record["methods"]["npo"]
    assert npo["worlds"] == [100, 101] and npo["config"] == "configs/mini/npo.yaml"
    assert npo["space"]["model.lr"] == {"low": 0.0002, "high": 0.01, "log": True, "int": False}
    assert npo["models"]["100"]["vanilla"]["retention"] == npo["models"]["100"]["gold"]["retention"] - 0.1 == 0
    best = min(npo["trials"], key=lambda one: one["score"])
    assert best["number"] == npo["best"] and best["worlds"]["101"]["values"]["forget/kl_gold"] == 0.6
    lr = best["setting"]["model.lr"]
    forgetting = (2 * 0.1 / (1 + 1000 * lr) + 1 - math.exp(-0.1)) / 4
    assert best["forgetting"] == pytest.approx(forgetting, abs=1e-4)
    assert best["retention"] == pytest.approx(10 * lr, abs=1e-4) and npo["edges"].keys() == npo["space"].keys()
    assert float(f"{lr:.3g}") == lr and all(0.0002 <= one["setting"]["model.lr"] <= 0.01 for one in npo["trials"])


def test_a_method_that_nobody_is_to_tell_from_gold_is_attacked_as_well(bench, tmp_path, monkeypatch):
    asked = []

    def attacked(cells, golds, only, settings, jobs):
        asked.extend((cell.block, cell.row, only, golds[cell.block] == [cell.gold.folder]) for cell in cells)

        def found(share):
            row = {"series": "", "x": None, "clean": False, "counts": True, "run": {"forget": share}}
            return {"conditions": [row | {"gold": {"forget": 0.5}}], "says": False}

        record = {"attacks": {"membership": found(0.4), "choose": found(0.8)}}
        return {(cell.block, cell.row, cell.seed): record for cell in cells}, [], 4

    monkeypatch.setattr(tuning, "attacked", attacked)
    spaces = changed(tmp_path, lambda s: s.update(attacked=["viker"]))
    record = bench.tune("one", "--trials=2", f"--spaces={spaces}")
    assert [one[:2] for one in asked] == [(world, f"viker {n}") for n in (0, 1) for world in ("100", "101")]
    assert {one[2:] for one in asked} == {("membership,choose", True)}
    for one in record["methods"]["viker"]["trials"]:
        assert one["inside"] == 0.2, "either way"
        assert one["score"] == pytest.approx(one["forgetting"] + one["retention"] + 0.2, abs=2e-4)
    assert all("inside" not in one for one in record["methods"]["npo"]["trials"])
    assert "| score | forgetting | retention | inside |" in (bench.folder / "one/results/tuning-mini.md").read_text()
    study = open_study(bench.folder / "one/runs", "viker", read_spaces(SPACES), [100, 101])
    assert tried(study) == [], "another score, another study"


def test_a_tuning_that_stops_goes_on_with_the_same_settings(bench):
    whole = bench.tune("whole", "--trials=8")
    with pytest.raises(SystemExit, match="the same command resumes"):
        bench.tune("halves", "--trials=8", stop=20)
    study = open_study(bench.folder / "halves/runs", "npo", read_spaces(SPACES), [100, 101])
    assert 0 < len(tried(study)) < 8 and len(study.get_trials()) == len(tried(study)) + 1
    halves = bench.tune("halves", "--trials=8")
    assert halves["methods"] == whole["methods"]
    assert drawn(bench.tune("halves", "--trials=9"))["npo"][:8] == drawn(whole)["npo"] and len(bench.runs) == 4
    bench.tune("halves", "--trials=9")
    assert bench.runs == []


def test_methods_do_not_change_each_other_s_settings(bench):
    both = bench.tune("both", "--trials=6")
    alone = bench.tune("alone", "--trials=6", "--methods", "viker")
    assert drawn(alone) == {"viker": drawn(both)["viker"]}
    kept = bench.tune("alone", "--trials=6", "--methods", "npo")
    assert kept["methods"] == both["methods"], "what is known of the other method stays"


def test_other_worlds_begin_with_the_same_settings(bench):
    """So that their runs can be used again."""
    record = drawn(bench.tune("two", "--trials=6"))
    more = drawn(bench.tune("two", "--trials=6", "--worlds", "100", "101", "102"))
    assert [more[name][:5] for name in more] == [record[name][:5] for name in record]
    assert [row for row in bench.runs if row[1] != "102" and int(row[0][-1]) < 5] == []


def test_another_space_begins_anew(bench, tmp_path):
    bench.tune("one", "--trials=2")
    wider = changed(tmp_path, lambda s: s["methods"]["npo"]["model.lr"].update(high=0.05))
    record = bench.tune("one", "--trials=2", f"--spaces={wider}")
    assert record["methods"]["npo"]["space"]["model.lr"]["high"] == 0.05
    assert {row for row, _ in bench.runs} == {"npo 1"}, "ViKeR has tried its settings, and what NPO's YAML has was run"


@pytest.fixture
def configs(tmp_path):
    """Copies of the YAMLs, and spaces that draw from them: their folder, and a way to change one."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for file in Path("configs/mini").glob("*.yaml"):
        text = file.read_text().replace("configs/mini/vanilla.yaml", str(folder / "vanilla.yaml"))
        (folder / file.name).write_text(text)
    spaces = changed(tmp_path, lambda s: s.update(configs=str(folder)))

    def edit(name, old, new):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return SimpleNamespace(option=f"--spaces={spaces}", edit=edit, spaces=spaces)


@pytest.mark.parametrize(
    ("name", "old", "new", "anew"),
    [
        ("npo.yaml", "batch_size: 24", "batch_size: 12", {"npo"}),
        ("npo.yaml", "class_path: NPO", "class_path: SimNPO", {"npo"}),
        ("npo.yaml", "r: 8", "r: 4", {"npo"}),
        ("gold.yaml", "max_steps:", "val_check_interval: 1.0\n  max_steps:", {"npo", "viker"}),
        ("vanilla.yaml", "max_steps:", "val_check_interval: 1.0\n  max_steps:", {"npo", "viker"}),
        ("npo.yaml", "lr: 0.00445", "lr: 0.001", set()),  # what trials draw: the best of them is put there
        ("npo.yaml", "default_root_dir: runs/mini/npo", "default_root_dir: elsewhere", set()),
        ("npo.yaml", "# NPO", "# Mine", set()),
        ("idk.yaml", "batch_size: 24", "batch_size: 12", set()),
    ],
)
def test_a_study_is_of_the_yamls_it_draws_from(configs, name, old, new, anew):
    """Trials of another batch size are not gone on with."""

    def made_of():
        spaces = read_spaces(configs.spaces)
        return {method: drawn_from(spaces, method) for method in ("npo", "viker")}

    before = made_of()
    configs.edit(name, old, new)
    assert {method for method, found in made_of().items() if found != before[method]} == anew


def test_a_changed_yaml_begins_anew(bench, configs):
    bench.tune("one", "--trials=2", configs.option)
    configs.edit("npo.yaml", "batch_size: 24", "batch_size: 12")
    record = bench.tune("one", "--trials=3", configs.option)
    assert {row for row, _ in bench.runs} == {"npo 2", "viker 2"}, "the bench keeps runs, whatever they are of"
    assert [len(found["trials"]) for found in record["methods"].values()] == [3, 3]
    runs, spaces = bench.folder / "one/runs", read_spaces(configs.spaces)
    assert len(tried(open_study(runs, "npo", spaces, [100, 101]))) == 3
    configs.edit("npo.yaml", "batch_size: 12", "batch_size: 24")
    assert len(tried(open_study(runs, "npo", spaces, [100, 101]))) == 2, "those of the first YAML are there still"


def test_the_first_setting_is_the_shipped_one(bench):
    record = bench.tune("one", "--trials=1")
    assert record["methods"]["npo"]["trials"][0]["setting"] == {
        option: float(config_option("configs/mini/npo.yaml", option)) for option in record["methods"]["npo"]["space"]
    }


def test_a_setting_that_cannot_be_run_counts_and_has_no_score(bench):
    with pytest.raises(SystemExit, match=r"^error: 1 settings failed and have no score: npo 1$"):
        bench.tune("one", "--trials=3", fail=lambda cell: cell.row == "npo 1")
    record = read_tuning(bench.folder / "one/mini.json")
    assert record["methods"]["npo"]["trials"][1]["error"] == "100 / npo 1 / seed 0: error: no such luck"
    assert len(record["methods"]["npo"]["trials"]) == 3 and record["methods"]["npo"]["best"] != 1
    assert settings_tried(bench.folder / "one/mini.json")[2]["score"] is None
    assert "- npo 1: 100 / npo 1" in (bench.folder / "one/results/tuning-mini.md").read_text()


def test_a_gold_model_that_fails_stops_it(bench):
    with pytest.raises(SystemExit, match=r"^error: 101 / gold / seed 0: error: no such luck$"):
        bench.tune("one", "--trials=2", fail=lambda cell: (cell.block, cell.row) == ("101", "gold"))
    assert len(bench.tune("one", "--trials=2")["methods"]["npo"]["trials"]) == 2


def test_page_and_figure(bench):
    record = bench.tune("one", "--trials=8")
    text = (bench.folder / "one/results/tuning-mini.md").read_text()
    best = next(one for one in record["methods"]["npo"]["trials"] if one["number"] == record["methods"]["npo"]["best"])
    assert f"| npo | 8 | {best['score']:.3f} | {best['forgetting']:.3f} | {best['retention']:.3f} |" in text
    assert "| method | ≤ 0.1 | ≤ 0.15 | ≤ 0.2 | ≤ 0.3 |" in text and "| method | 100 | 101 | mean |" in text
    assert "| npo | `model.lr` | 0.0002 to 0.01 (log) |" in text and "| viker | `model.method.k` | 1, 3, 5" in text
    assert "## Failed" not in text
    drawn = (bench.folder / "one/results/figures/tuning-mini.svg").read_text()
    for said in ("npo", "viker", "distance from gold", "X vanilla, ★ gold"):
        assert said in drawn
    assert drawn.count('<g id="axes_') == 2, "a panel a method"


def test_a_figure_of_settings_that_all_failed_is_empty():
    failed = {"trials": [{"number": 0, "error": "no such luck"}], "worlds": [100], "models": {}}
    (panel, *_) = front_figure({"methods": {"npo": failed}}).axes
    assert not panel.lines and not panel.get_visible()


def test_settings_tried_are_listed_by_method_the_best_first(bench):
    bench.tune("one", "--trials=4")
    rows = settings_tried(bench.folder / "one/mini.json")
    assert [row["method"] for row in rows] == ["npo"] * 4 + ["viker"] * 4
    scores = [row["score"] for row in rows[:4]]
    assert scores == sorted(scores) and rows[0].keys() >= {"setting", "forgetting", "retention"}


def test_what_is_no_record_is_said_in_one_line(tmp_path):
    (tmp_path / "mini.json").write_text("[]")
    with pytest.raises(UserError, match=r"mini.json: no record of make tune; found no 'methods' in it"):
        read_tuning(tmp_path / "mini.json")


def test_a_second_tuning_in_the_same_folder_waits(bench):
    runs = bench.folder / "one/runs"
    with tuning._alone(runs), pytest.raises(SystemExit, match="another tuning is at work here"):
        bench.tune("one", "--trials=2")


NOT_TUNED = ["against_relearning"]
"""It has the settings of the method inside it. Who tunes one puts the best settings into its YAML."""


def differing(record, spaces):
    """What is not as the best trial has it, of every YAML of a method that was tuned, and of what its trials were."""
    for name, found in record["methods"].items():
        scored = [one for one in found["trials"] if "score" in one]
        best = min(scored, key=lambda one: one["score"])
        if (found["config"], found["best"]) != (spaces.config(name), best["number"]):
            yield f"{name}: the record has {found['config']} and trial {found['best']}, best is {best['number']}"
        if found["space"] != as_json(spaces.methods[name]) or found["options"] != spaces.options:
            yield f"{name}: was tuned over another space, or with other options, than {SPACES} has"
        if best["setting"].keys() != spaces.methods[name].keys():
            yield f"{name}: its best trial has {', '.join(best['setting'])}"
        shipped = config_options(Path(spaces.config(name)))
        for option, value in best["setting"].items():
            there = shipped.get(option)
            there = float(there) if isinstance(value, float) and there is not None else there  # YAML reads 1e-3 as text
            if (there, type(there)) != (value, type(value)):
                yield f"{name}: {option} is {there} in the YAML, {value} in the best of {len(scored)} trials"


def test_configs_have_the_best_settings():
    """Of the record that comes with the project, for every method that was tuned; the others are named."""
    record, spaces = read_tuning(Path("docs/results/tuning-mini.json")), read_spaces(SPACES)
    assert [*differing(record, spaces)] == []
    assert [*record["methods"]] == [name for name in spaces.methods if name not in NOT_TUNED], "in the spaces' order"
    assert [name for name in spaces.methods if name not in record["methods"]] == NOT_TUNED, "these are not tuned"
    assert len({len(found["trials"]) for found in record["methods"].values()}) == 1, "as many settings for each"
    assert len({tuple(found["worlds"]) for found in record["methods"].values()}) == 1, "on the same worlds"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c, r: c["trainer"].update(max_steps=141), "npo: trainer.max_steps is 141 in the YAML, 140 in the best"),
        (lambda c, r: c["model"]["init_args"].update(lr="4.4e-3"), "npo: model.lr is 0.0044 in the YAML, 0.00445 in"),
        (lambda c, r: c["model"]["init_args"].pop("lr"), "npo: model.lr is None in the YAML"),
        (lambda c, r: r.update(best=3), "and trial 3, best is 9"),
        (lambda c, r: r["trials"][2].update(score=0.0), "trial 9, best is 2"),
        (lambda c, r: r["space"]["model.lr"].update(high=0.02), "npo: was tuned over another space"),
        (lambda c, r: r["options"].update({"data.max_people": 6}), "npo: was tuned over another space, or with other"),
    ],
)
def test_a_config_that_is_not_as_tuned_is_found(change, said, tmp_path):
    record, spaces = read_tuning(Path("docs/results/tuning-mini.json")), read_spaces(SPACES)
    config, found = yaml.safe_load(Path("configs/mini/npo.yaml").read_text()), record["methods"]["npo"]
    change(config, found)
    (tmp_path / "npo.yaml").write_text(yaml.safe_dump(config))
    found["config"] = str(tmp_path / "npo.yaml")
    assert said in next(differing({"methods": {"npo": found}}, replace(spaces, configs=tmp_path)))


@pytest.mark.slow
def test_two_settings_on_a_real_world(tmp_path, base_folder, monkeypatch):
    """Gold, its other seed, vanilla and two settings of NPO, a step or two each, of the smallest embedded data."""
    monkeypatch.setattr("viker_lightning.jobs.children.subprocess", forked.subprocess)
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("npo", "gold"):
        content = yaml.safe_load(Path(f"configs/mini/{name}.yaml").read_text())
        options = content["model"]["init_args"]
        options.update(
            {"vanilla": str(base_folder)} if name == "npo" else {"base": str(base_folder), "warmup_steps": 1}
        )
        content["trainer"]["max_steps"] = 2
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(content))
    spaces = read_spaces(SPACES)
    options = {"data.max_people": 1, "data.splits": spaces.options["data.splits"], "evaluation.max_new_tokens": 3}
    options |= {"gate.knowledge": 0, "gate.follows_image": 0, "gate.follows_text": 1, "trainer.logger": False}
    options |= {"evaluation.coherence": False}
    space = {"model.lr": {"low": 0.001, "high": 0.01, "log": True}, "model.method.beta": [0.1, 0.5]}
    file = tmp_path / "spaces.yaml"
    content = {"root": "mini/ci", "worlds": [100], "configs": str(configs), "options": options}
    file.write_text(yaml.safe_dump(content | {"methods": {"npo": space}}))
    given = [f"--{name}={tmp_path / name}" for name in ("runs", "results")]
    main([*given, f"--spaces={file}", f"--record={tmp_path / 'ci.json'}", "--trials=2", "--jobs=2"])
    record = json.loads((tmp_path / "ci.json").read_text())
    trials = record["methods"]["npo"]["trials"]
    assert len(trials) == 2 and trials[0]["setting"] != trials[1]["setting"]
    for one in trials:
        assert 0 <= one["forgetting"] <= 1 and 0 <= one["retention"] <= 1
        assert one["worlds"]["100"]["values"].keys() >= {"test/kl_gold", "forget/well_formed", "real/accuracy"}
    assert (tmp_path / "results/figures/tuning-ci.svg").is_file()
