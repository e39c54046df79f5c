"""The benchmark's loops, on tiny models: every route of every method gives the loss and gradient of the plain loop."""

import json
from pathlib import Path

import authors
import engine
import pytest
import torch
from ours import METHODS, gradient

from support.families import random_model
from viker_lightning.models import Lora

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "windowed"])
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


def test_published_questions_are_answered_as_the_authors_loop_does():
    rows = authors.measured(random_model("llava"), 16, 1, people=3, max_new_tokens=2)
    assert [r["questions"] for r in rows] == [2 * 5 + 2, 2 * 5 + 2, 3 * (2 + 2), 36]
    assert all(r["same_answers"] for r in rows)


def test_table_of_the_kept_results():
    """The results that are kept and the table made from them belong together, and name what was promised."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    assert (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8") == engine.markdown(results)
    recomputed = engine.ratios(results["llava"])
    assert {key: results[key] for key in recomputed} == recomputed
