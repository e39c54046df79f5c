"""Scores judged by hand: areas, thresholds, Q and R of a few plain numbers; and a pool of models nobody trained."""

import json
import math
from pathlib import Path

import meta
import pytest
from meta import (
    CONDITIONS,
    GROUPS,
    Member,
    alike,
    answers,
    beside,
    gather_pool,
    judge,
    judge_all,
    kept_by_quantisation,
    kept_by_relearning,
    main,
    page,
    shown_knowledge,
    shows,
    threshold,
)

from support.weights import random_vanilla
from viker_lightning.attacks import Subject
from viker_lightning.errors import UserError
from viker_lightning.evaluation import summarise
from viker_lightning.grids import read_grid
from viker_lightning.grids.grid import config_option
from viker_lightning.metrics import NUMBERS, SECTIONS

ROOT = Path(__file__).parents[2]


def member(title, group, utility=1.0):
    return Member(title, group, Path(title), "", utility)


def said(*values):
    return dict(zip(CONDITIONS, values, strict=True))


POOL = [
    *(member(f"with {i}", "with") for i in (1, 2)),
    *(member(f"without {i}", "without") for i in (1, 2)),
    member("forgot", "unlearned"),
    member("knows", "unlearned"),
    member("broken", "unlearned", utility=0.7),
]
GOLD = member("gold", "without")
VALUES = {
    "with 1": said(0.9, 0.8, 1.0),
    "with 2": said(0.4, 0.1, 1.0),
    "without 1": said(0.5, 0.2, 0.9),
    "without 2": said(0.1, 0.1, 0.8),
    "forgot": said(0.2, 0.1, 0.9),
    "knows": said(0.8, 0.8, 0.8),
    "broken": said(0.0, 0.0, 0.0),
    "gold": said(0.1, 0.1, 0.45),
}


def test_a_score_is_judged_by_what_it_says_of_the_pool():
    row = judge(VALUES, POOL, GOLD)
    assert row["faithful"] == 0.75  # of four pairs, .4 is not above .5
    assert row["quantised"] == (1 + 1 + 0 + 0.5) / 4
    assert row["relearned"] == 1.0
    assert row["threshold"] == pytest.approx(0.25)  # .7 parts as well, but is higher
    assert row["models"] == 1  # one still knows, by this score, and one is broken
    assert row["Q"] == pytest.approx(0.5) and row["R"] == pytest.approx(0.5)
    assert row["robust"] == pytest.approx(0.5)
    assert row["Q_both_ways"] == pytest.approx(1 - 0.1 / 0.3)
    assert row["R_both_ways"] == pytest.approx(1 - 0.35 / 1.05)


def test_what_cannot_be_said_is_left_open():
    none = judge(VALUES, POOL[:4], GOLD)
    assert none["models"] == 0 and none["Q"] is none["R"] is none["robust"] is None
    same = {title: said(0.5, 0.5, 0.5) for title in VALUES}
    row = judge(same, POOL, GOLD)
    assert row["faithful"] == 0.5 and row["threshold"] is None
    assert row["models"] == 2 and row["Q"] == 1.0 and row["R"] is None  # nothing is gained


@pytest.mark.parametrize(
    ("before", "after", "q"), [(0.5, 0.25, 0.5), (0.5, 0.9, 1.0), (0.5, -0.1, 0.0), (0.0, 0.7, 1.0)]
)
def test_quantisation_may_take_nothing(before, after, q):
    assert kept_by_quantisation(before, after) == q


@pytest.mark.parametrize(
    ("gold", "unlearned", "r"), [(0.2, 0.4, 0.5), (0.4, 0.2, 1.0), (-0.1, 0.2, 0.0), (0.1, 0.0, None)]
)
def test_gold_may_not_be_slower(gold, unlearned, r):
    assert kept_by_relearning(gold, unlearned) == r


def test_a_change_either_way_counts_where_both_ways_are_asked():
    assert alike(0.5, 0.25) == alike(0.25, 0.5) == pytest.approx(2 / 3)
    assert alike(0.0, 0.0) == 1.0 and alike(0.3, -0.3) == 0.0


def test_the_threshold_has_fewest_errors():
    assert threshold([0.9, 0.8], [0.1, 0.2]) == pytest.approx(0.5)
    assert threshold([0.3, 0.8], [0.1, 0.5]) == pytest.approx(0.2)
    assert threshold([0.3], [0.3]) == math.inf


def test_every_score_shows_knowledge_upwards():
    scores = {one.name: one for one in NUMBERS}
    elsewhere = {"acc_r", "cloze_r", "rl_r", "distance_to_gold", "model_utility"}  # of other splits, or of several
    low = {name for name, one in scores.items() if shows(one) == "low" and not name.startswith("clear_")} - elsewhere
    forget_quality = {"forget_quality_p", "forget_quality_log10_p"}
    assert low == {"truth_ratio", "refusals", "corrected", "js_similarity", "acc_f", "cloze_f"} | forget_quality
    nothing = {name for name, one in scores.items() if shows(one) == "nothing"}
    assert nothing == {one.name for one in SECTIONS["fluency"]} - {"refusals"} | {"n", "template_probability"}
    assert shown_knowledge(scores["keyword_match"], 0.3) == 0.3
    assert shown_knowledge(scores["truth_ratio"], 0.3) == pytest.approx(0.7)
    assert shown_knowledge(scores["forget_quality_log10_p"], -5.0) == 5.0
    assert shown_knowledge(scores["well_formed"], 0.3) == 0.3, "as it is"


def test_scores_of_the_table_are_judged_split_by_split():
    def numbers(leaked, ratio):
        return {"forget": {"keyword_match": leaked, "truth_ratio": ratio, "n": 8}, "retain": {"keyword_match": 1.0}}

    summaries = {
        m.title: {c: numbers(*((0.9, 0.1) if m.group == "with" else (0.1, 0.8))) for c in CONDITIONS}
        for m in [*POOL, GOLD]
    }
    summaries["without 2"]["relearned"] = {"forget": {"keyword_match": math.inf}}  # in no group by these scores
    found = judge_all(summaries, POOL, GOLD)
    assert list(found) == ["forget"] and set(found["forget"]) == {"keyword_match", "truth_ratio", "n"}
    rows = found["forget"]
    assert (rows["keyword_match"]["shows"], rows["truth_ratio"]["shows"], rows["n"]["shows"]) == (
        "high",
        "low",
        "nothing",
    )
    assert rows["keyword_match"]["faithful"] == rows["truth_ratio"]["faithful"] == 1.0 and rows["n"]["faithful"] == 0.5


def test_the_page_has_the_most_faithful_first():
    rows = {"a": judge(VALUES, POOL, GOLD) | {"shows": "high"}, "b": judge(VALUES, POOL, GOLD) | {"shows": "low"}}
    rows["b"] |= {"faithful": 0.9, "Q": None}
    pool = [{"title": m.title, "group": m.group} for m in [GOLD, *POOL]]
    record = {"pool": pool, "settings": {"data": "mini/ci"}, "scores": {"forget": rows}}
    text = page(record)
    assert "2 models trained with the people to be forgotten, 2 without,\n3 unlearned; data mini/ci" in text
    assert text.index("| `b` | low | 0.90 |") < text.index("| `a` | high | 0.75 |")
    assert "| `a` | high | 0.75 | 0.62 | 1.00 | 0.50 | 0.50 | 0.50 | 1 |" in text
    assert "| `b` | low | 0.90 | 0.62 | 1.00 | - |" in text
    assert beside(record) == {"a": "0.75 / 0.50", "b": "0.90 / 0.50"} and beside(record, "test") == {}


@pytest.mark.extended
def test_a_pool_is_asked_once_in_every_condition(data, base_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(meta, "TEACH", meta.Relearn(steps=(0, 2), lr=0.01, batch_size=4))
    folders = {n: random_vanilla(base_folder, tmp_path / n, seed=i) for i, n in enumerate(("gold", "one"))}
    gold = Subject("gold", str(folders["gold"]), tmp_path)
    model = Member("one", "with", folders["one"], "", 1.0)
    found = {c: answers(model, c, data, gold, tmp_path / "kept") for c in CONDITIONS}
    asked = {(p.split, p.person, p.task, p.number, p.question) for p in found["as it is"]}
    assert {split for split, *_ in asked} == {"forget", "test"}
    for condition, answered in found.items():
        assert {(p.split, p.person, p.task, p.number, p.question) for p in answered} == asked
        assert all(p.kl_gold is not None for p in answered if p.task == "generation")
        if condition != "as it is":
            assert [p.log_probs for p in answered] != [p.log_probs for p in found["as it is"]]
    monkeypatch.setattr(Subject, "load", lambda self: pytest.fail("these answers are there already"))
    assert answers(model, "relearned", data, gold, tmp_path / "kept") == found["relearned"]
    numbers = summarise(found["relearned"], found["as it is"])
    assert {"extraction_strength", "exact_memorization", "mia_loss"} <= numbers["forget"].keys()
    file = next((tmp_path / "kept").glob("one-quantised-*.parquet"))
    file.write_bytes(b"half")
    with pytest.raises(UserError, match="holds no answers"):
        answers(model, "quantised", data, gold, tmp_path / "kept")


def test_the_shipped_pool_has_models_of_every_group(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    grid = read_grid(ROOT / "experiments/meta.yaml", "mini", 2)
    cells = grid.cells(tmp_path)
    groups = [GROUPS[config_option(cell.config, "data.stage")] for cell in cells if cell.row != grid.gold]
    assert {group: groups.count(group) for group in GROUPS.values()} == {"with": 10, "without": 10, "unlearned": 5}
    assert len({cell.folder for cell in cells}) == len(cells)  # none is gold itself, or another one of them
    assert all(cell.options["evaluation.gold"] == str(cells[0].folder) for cell in cells[1:])
    for cell in cells:
        cell.folder.mkdir(parents=True)
        (cell.folder / "results.json").write_text(json.dumps({"after": {"retain": {"keyword_match": 0.75}}}))
    gold, pool = gather_pool(cells, grid.gold)
    assert gold.folder == cells[0].folder and len(pool) == 25 and all(m.utility == 0.75 for m in pool)
    with pytest.raises(UserError, match="no model trained with the people"):
        gather_pool([cell for cell in cells if not cell.row.startswith("With,")], grid.gold)
    (cells[3].folder / "results.json").write_text(json.dumps({"after": {"forget": {}}}))
    with pytest.raises(UserError, match="evaluate the split retain"):
        gather_pool(cells, grid.gold)


def test_a_mistake_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*no such file"):
        main([str(tmp_path / "no.yaml")])
