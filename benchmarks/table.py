"""The Markdown of a results file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from viker_lightning.reporting import section
from viker_lightning.reporting.section import Section

HEADLINES = {
    "viker_speedup_vs_plain": "ViKeR step, plain (adapter off) / ours with kept key/values",
    "student_speedup_vs_plain": "gradient-ascent step, plain / ours",
    "reference_speedup_vs_plain": "frozen model behind 5 irrelevant images, plain / ours",
    "viker_vs_plain_gradient_ascent": "our ViKeR step / plain gradient-ascent step",
    "viker_step_vs_gradient_ascent_step_with_store": "our ViKeR step with store / our gradient-ascent step",
    "eval_speedup_vs_one_by_one": "greedy answers, one by one / ours",
    "published_asking_speedup_vs_authors_script": "MLLMU-Bench asked as published, its authors' script / ours",
    "published_validate_speedup_vs_authors_script": "the same from command to scores, their whole script / `validate`",
    "peak_memory_vs_two_models": "peak memory of a ViKeR step, ours / plain with a second model",
    "max_relative_gradient_difference": "largest relative difference of any gradient to the plain loop's",
}


SECTIONS = {
    "growth": "How a step grows",
    "strangers": "Stranger: a step on 4 images with 3 questions each, k = 20, CPU seconds",
    "classes": "A step of every class with default arguments, in CPU seconds and in steps of gradient ascent",
    "people": "The store: people with one question each",
    "evaluation": "Evaluation",
    "sampling": "Sampled answers: 6 questions on each of 2 images, 16 answers to each, CPU seconds",
    "published": "MLLMU-Bench asked as published, CPU seconds",
    "features": "Features of a picture",
}
METHODS = ["method", "route", "s / step", "questions / s", "times plain", "peak MiB", "loss differs"]
METHODS += ["gradient differs"]


def markdown(results: dict) -> str:
    """All tables of a results file."""
    machine = results["machine"]
    headlines = [[HEADLINES[key], _number(results[key])] for key in HEADLINES if key in results]
    models = [part for name in ("llava", "qwen2_vl") for part in _model(name, results.get(name, {}))]
    return section.markdown(
        [
            "# Speed and memory of the engine",
            textwrap.fill(
                f"Made by `make bench`. CPU ({machine['processor']}), {machine['threads']} thread(s), fp32, torch "
                f"{machine['torch']}; medians of alternating runs in one process. One step: 6 questions on one image, "
                "k = 5. Memory is the peak of two steps above what Python and its libraries take, each route in a "
                "process of its own.",
                100,
            ),
            Section("", ["what", "number"], headlines),
            *models,
        ]
    )


def _model(name: str, found: dict) -> Iterator[Section]:
    if "methods" in found:
        methods = found["methods"]
        title = f"{name}: {methods['parameters'] / 1e6:.0f} M parameters, {methods['image_tokens']} image tokens"
        note = f"Medians of {found['runs']['methods']['repeats']}."
        yield Section(title, METHODS, [_method(row, found) for row in methods["rows"]], note)
    for key, title in SECTIONS.items():
        if key in found:
            columns = [*found[key][0]]
            rows = [[_number(row[column]) for column in columns] for row in found[key]]
            heading = f"{title} ({name}, medians of {found['runs'][key]['repeats']})"
            yield Section(heading, [column.replace("_", " ") for column in columns], rows)


def _method(row: dict, found: dict) -> list[str]:
    """A method by one route, beside the plain one."""
    plain = {r["method"]: r["seconds"] for r in found["methods"]["rows"] if r["route"] == "adapter off"}
    peaks = {(r["method"], r["route"]): r["peak_mib"] for r in found.get("memory", [])}
    cells = [row["method"], row["route"], f"{row['seconds']:.2f}", f"{row['questions_per_second']:.2f}"]
    cells.append(f"{plain[row['method']] / row['seconds']:.1f}" if row["method"] in plain else "")
    peak = peaks.get((row["method"], row["route"]))
    cells.append(f"{peak:.0f}" if peak else "")
    return cells + [f"{row[key]:.0e}" if key in row else "" for key in ("loss_difference", "gradient_difference")]


def _number(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
