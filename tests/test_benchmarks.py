"""The benchmark's loops, on tiny models: every route of every method gives the loss and gradient of the plain loop.

And a step of every class there is can be taken.
"""

import json
from pathlib import Path

import authors
import classes
import engine
import pytest
import sections
import torch
import yaml
from ours import METHODS, gradient
from transformers import LlamaConfig

from models import questions
from support.families import llava, random_model
from support.marks import quick
from viker_lightning import methods
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import ImageGroup, Split
from viker_lightning.models import Lora

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", quick(["llava", "qwen2_vl", "windowed"], ["llava"]))
def test_every_route_gives_the_plain_gradient(name):
    mllm = random_model(name)
    mllm.adapt(Lora(r=2))
    with torch.no_grad():
        for key, p in mllm.named_parameters():
            if "lora_B" in key:
                p.normal_(std=0.1)
    routes = engine.loops(mllm, n=3, k=2)
    for method in METHODS:
        losses, gradients = {}, {}
        for route, loop in routes.items():
            losses[route] = loop.step(method)
            gradients[route] = gradient(mllm)
        again = routes["store"].step(method)
        plain = gradients["second model"]
        assert plain.norm() > 0 and again == pytest.approx(losses["store"], rel=1e-6)
        for route in routes:
            assert losses[route] == pytest.approx(losses["second model"], rel=1e-5, abs=1e-5)
            assert (gradients[route] - plain).norm() / plain.norm() < 1e-5, (method, route)
        mllm.zero_grad()


@pytest.mark.extended
def test_published_questions_are_answered_as_the_authors_script_does(monkeypatch):
    """Those about the people to forget; the benchmark itself compares all answers."""

    def once(routes, *_):
        for run in routes.values():
            run()
        return dict.fromkeys(routes, 2.0)

    monkeypatch.setattr(authors, "alternate", once)
    monkeypatch.setattr(authors, "MODES", {Split.FORGET: "forget_5"})
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", "set by the benchmark")
    rows = authors.measured(random_model("llava"), 16, 1, people=3, max_new_tokens=2)
    asked = 2 * 10 + 1 * 4 + 3 * 4  # choices and clozes but for those of the people of examples, open questions
    assert [r["questions"] for r in rows] == [asked] * 2 and all(r["same_answers"] for r in rows)
    assert [r["speedup"] for r in rows] == [1.0, 2.0], "the rest of the script counts in the whole"


def test_rates_of_sampling_are_of_all_answers(monkeypatch):
    monkeypatch.setattr(sections, "TOKENS", 3)
    ticks = iter(i * 2.0 for i in range(1000))
    monkeypatch.setattr(sections.time, "process_time", lambda: next(ticks))
    pictures = irrelevant_images("scenes", 2, size=56)
    groups = [ImageGroup(str(i), p, vqa=questions(3, 4)) for i, p in enumerate(pictures)]
    rows = sections.sampled(random_model("llava"), groups, 4, 1)
    assert [r["answers"] for r in rows] == [2, 2 * 4, 2 * 3 * 4] and {r["cpu_seconds"] for r in rows} == {2.0}
    assert [r["answers_per_cpu_second"] for r in rows] == [1.0, 4.0, 12.0]
    assert [r["of_one_by_one"] for r in rows] == [1.0, 4.0, 12.0]


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A tiny model with as many layers as the benchmark's: some classes name one."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    torch.manual_seed(0)
    mllm = llava(LlamaConfig(num_hidden_layers=8, **sizes))
    folder = tmp_path_factory.mktemp("deep")
    mllm.save(folder)
    return folder


@pytest.mark.parametrize("name", quick(methods.NAMES, ["KVW", "NPO", "ViKeR"]))
def test_a_step_of_every_class_is_measured(deep, name, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(classes.time, "process_time", lambda: float(next(ticks)))
    clock = classes.timed(method := classes.default(name), deep, 2, 56, 2)
    assert clock.before == 1
    assert clock.steps == ([1, 1] if method.takes_steps else [])


def test_a_class_is_trained_as_its_configs_say(tmp_path, monkeypatch):
    method = {"class_path": "viker_lightning.methods.NPO"}
    models = {"one": {"method": method, "lora": None}, "two": {"method": method}, "vanilla": {"base": "mini"}}
    for name, model in models.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"model": {"init_args": model}}))
    monkeypatch.setattr(classes, "CONFIGS", tmp_path)
    assert [*classes.configs("NPO")] == ["one.yaml", "two.yaml"] and classes.lora_of("NPO") == Lora()
    (tmp_path / "two.yaml").unlink()
    assert classes.lora_of("NPO") is None and classes.lora_of("IDK") == Lora()


def test_layers_are_those_of_the_config(tmp_path, monkeypatch):
    class Deep(methods.GradientAscent):
        def __init__(self, last_layer=25, weight=1.0):
            self.last_layer, self.weight = last_layer, weight

    method = {"class_path": "Deep", "init_args": {"last_layer": 3, "weight": 2.0}}
    (tmp_path / "deep.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"method": method}}}))
    monkeypatch.setattr(classes, "CONFIGS", tmp_path)
    monkeypatch.setattr(methods, "Deep", Deep, raising=False)
    made = classes.default("Deep")
    assert (made.last_layer, made.weight) == (3, 1.0), "all else is the default"


def test_the_cost_of_a_class_is_in_steps_of_gradient_ascent(deep, monkeypatch):
    ticks = {"GradientAscent": (9.0, [2.0, 6.0, 4.0]), "NPO": (8.0, [5.0, 7.0, 6.0]), "IDK": (12.0, [])}

    def timed(method, *_):
        clock = classes.Clock()
        clock.before, clock.steps = ticks[type(method).__name__]
        return clock

    monkeypatch.setattr(classes, "timed", timed)
    costs = [("NPO", 6.0, 1.5, 2.0), ("IDK", None, None, 3.0)]
    columns = ("method", "cpu_seconds", "of_gradient_ascent", "before_first_step")
    rows = classes.measured(deep, ["NPO", "IDK"], 3)
    assert rows == [dict(zip(columns, row, strict=True)) for row in costs]
    table = engine.markdown(
        {
            "machine": {"processor": "", "threads": 1, "torch": ""},
            "llava": {"classes": rows, "runs": {"classes": {"repeats": 3}}},
        }
    )
    assert "| NPO | 6 | 1.5 | 2 |" in table and "| IDK |  |  | 3 |" in table


def test_table_of_the_kept_results():
    """The results that are kept and the table made from them belong together, and name what was promised."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    assert (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8") == engine.markdown(results)
    recomputed = {key: value for key, value in engine.ratios(results["llava"]).items() if value is not None}
    assert {key: results[key] for key in recomputed} == recomputed
