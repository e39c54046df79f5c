"""What the engine saves: the product against the plain loop, as ratios measured in one process on one machine.

    python benchmarks/engine.py [methods growth people evaluation sampling published classes]
        [--model llava] [--repeats 5]

One step asks 6 questions (about 25 + 20 tokens each) about one image; k = 5 irrelevant images; fp32; one thread unless
told. Every section writes its part of ``results.json``; ``results.md`` is made from the whole.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path

import torch
from authors import published_section
from classes import classes_section
from measure import alternate, peak, peak_of, resident
from ours import METHODS, ROUTES, OurLoop, gradient
from plain import PlainLoop
from sections import evaluation_section, features_section, people_section, sampling_section, strangers_section
from table import markdown

from models import MODELS, questions
from viker_lightning.data.pictures.irrelevant import irrelevant_images

RESULTS = Path(__file__).with_name("results.json")
PLAIN = {"second model": True, "adapter off": False}


def loops(mllm, n=6, k=5, routes=(*PLAIN, *ROUTES)):
    """The routes by name, on the same questions."""
    image, retain, *irrelevant = irrelevant_images("scenes", k + 2, size=336)
    found = {}
    for route in routes:
        if route in PLAIN:
            found[route] = PlainLoop(mllm, image, retain, questions(n), irrelevant, PLAIN[route])
        else:
            found[route] = OurLoop(mllm, image, retain, questions(n), irrelevant, route)
    return found


def methods_section(name: str, repeats: int) -> dict:
    """Every method on every route, with the agreement of loss and gradient; and the bare language model."""
    mllm = MODELS[name]().train()
    routes = loops(mllm)
    losses, gradients, runs = {}, {}, {}
    for method in METHODS:
        for route, loop in routes.items():
            runs[f"{method}/{route}"] = lambda loop=loop, key=f"{method}/{route}": losses.update(
                {key: loop.step(key.split("/")[0])}
            )
    runs["references/adapter off"] = routes["adapter off"].references
    runs["references/prefix"] = routes["prefix"].references
    runs["bare/adapters"] = lambda: bare(mllm, routes["store"], adapters=True)
    runs["bare/frozen"] = lambda: bare(mllm, routes["store"], adapters=False)

    def after(key: str) -> None:
        if key in losses and key not in gradients:
            gradients[key] = gradient(mllm)
        mllm.zero_grad()

    seconds = alternate(runs, repeats, after)
    rows = []
    for key, value in seconds.items():
        method, route = key.split("/")
        row = {"method": method, "route": route, "seconds": value, "questions_per_second": 6 / value}
        if key in losses:
            plain = f"{method}/second model"
            row["loss_difference"] = abs(losses[key] - losses[plain]) / abs(losses[plain])
            row["gradient_difference"] = ((gradients[key] - gradients[plain]).norm() / gradients[plain].norm()).item()
        rows.append(row)
    parameters = sum(p.numel() for p in mllm.parameters())
    tokens = math.prod(mllm.vision.shape(mllm.base, routes["store"].forget.image))
    return {"parameters": parameters, "image_tokens": tokens, "rows": rows}


def bare(mllm, loop: OurLoop, adapters: bool) -> None:
    """Forward and backward of as many tokens through the language model alone, causal, without output embedding."""
    width = mllm.pack([loop.forget]).input_ids.shape[1]
    size = mllm.base.config.get_text_config().hidden_size
    embeddings = torch.ones(1, width, size).requires_grad_(not adapters)
    language_model = mllm.base.model.language_model
    if adapters:
        language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state.sum().backward()
    else:
        with mllm.model.disable_adapter():
            language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state.sum().backward()


def growth_section(name: str, repeats: int) -> list[dict]:
    """How a ViKeR step grows with questions per image, k, and image tokens."""
    points = [("questions", n, {"n": n}, 576) for n in (1, 2, 4, 8, 16)]
    points += [("k", k, {"k": k}, 576) for k in (1, 3, 10)]
    points += [("image_tokens", t, {}, t) for t in (64, 144)]
    points.append(("6 questions, k = 5, image_tokens", 576, {}, 576))  # belongs to all three axes
    rows = []
    for axis, value, options, tokens in points:
        print(f"  {axis} = {value}", flush=True)
        mllm = MODELS[name](tokens).train()
        routes = loops(mllm, **options, routes=("adapter off", "prefix", "store"))
        runs = {f"viker/{route}": lambda loop=loop: loop.step("viker") for route, loop in routes.items()}
        runs["gradient_ascent/store"] = lambda loop=routes["store"]: loop.step("gradient_ascent")
        seconds = alternate(runs, repeats, lambda key, mllm=mllm: mllm.zero_grad())
        n = options.get("n", 6)
        for key, found in seconds.items():
            rows.append(
                {"axis": axis, "value": value, "route": key, "seconds": found, "questions_per_second": n / found}
            )
    return rows


def memory_section(name: str, repeats: int) -> list[dict]:
    """Peak memory of every method on every route."""
    rows = []
    for method in METHODS:
        for route in (*PLAIN, *ROUTES):
            rows.append({"method": method, "route": route, "peak_mib": peak_of(name, method, route)})
            print(f"  {rows[-1]}", flush=True)
    return rows


def print_peak(name: str, method: str, route: str) -> None:
    """Measures this very process."""
    before = resident()
    loop = loops(MODELS[name]().train(), routes=(route,))[route]
    for _ in range(2):
        loop.step(method)
        loop.mllm.zero_grad()
    print(json.dumps(peak() - before))


SECTIONS = {
    "methods": methods_section,
    "memory": memory_section,
    "evaluation": evaluation_section,
    "sampling": sampling_section,
    "published": published_section,
    "growth": growth_section,
    "people": people_section,
    "strangers": strangers_section,
    "classes": classes_section,
    "features": features_section,
}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--model", nargs="*", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.sections == ["peak"]:
        print_peak(args.model[0], *args.only.split("/"))
        return
    for section in args.sections:
        for name in args.model:
            if section in ("methods", "memory") or name == "llava":
                print(f"{section}, {name}", flush=True)
                started = time.perf_counter()
                found = SECTIONS[section](name, args.repeats)
                facts = {"repeats": args.repeats, "minutes": round((time.perf_counter() - started) / 60, 1)}
                write(args.out, args.threads, name, section, found, facts)


def write(out: Path, threads: int, name: str, section: str, found: object, facts: dict) -> None:
    """Adds a section to a results file, headline numbers first, and makes the table."""
    results = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    results["machine"] = {"torch": torch.__version__, "processor": platform.machine(), "threads": threads}
    results.setdefault(name, {})[section] = found
    results[name].setdefault("runs", {})[section] = facts
    headline = {key: value for key, value in ratios(results.get("llava", {})).items() if value is not None}
    ordered = {**headline, **{k: v for k, v in results.items() if not isinstance(v, float)}}
    out.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(markdown(ordered), encoding="utf-8")


def ratios(found: dict) -> dict[str, float | None]:
    """The numbers one asks for first."""
    s = {f"{r['method']}/{r['route']}": r["seconds"] for r in found.get("methods", {}).get("rows", [])}
    m = {f"{r['method']}/{r['route']}": r["peak_mib"] for r in found.get("memory", [])}
    differences = [r.get("gradient_difference", 0.0) for r in found.get("methods", {}).get("rows", [])]
    e = {r["what"]: r["speedup"] for r in found.get("evaluation", [])}
    p = {(r["what"], r["image_tokens"]): r["speedup"] for r in found.get("published", [])}

    def ratio(a: str, b: str, values: dict = s) -> float | None:
        return values[a] / values[b] if a in values and b in values else None

    return {
        "viker_speedup_vs_plain": ratio("viker/adapter off", "viker/prefix"),
        "student_speedup_vs_plain": ratio("gradient_ascent/adapter off", "gradient_ascent/prefix"),
        "reference_speedup_vs_plain": ratio("references/adapter off", "references/prefix"),
        "viker_vs_plain_gradient_ascent": ratio("viker/prefix", "gradient_ascent/adapter off"),
        "eval_speedup_vs_one_by_one": e.get("generation"),
        "published_asking_speedup_vs_authors_script": p.get(("asking", 576)),
        "published_validate_speedup_vs_authors_script": p.get(("whole command", 576)),
        "viker_step_vs_gradient_ascent_step_with_store": ratio("viker/store", "gradient_ascent/store"),
        "peak_memory_vs_two_models": ratio("viker/prefix", "viker/second model", m),
        "max_relative_gradient_difference": max(differences) if differences else None,
    }


if __name__ == "__main__":
    main()
