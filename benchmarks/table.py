"""The Markdown of a results file."""

from __future__ import annotations

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


def markdown(results: dict) -> str:
    """All tables of a results file."""
    machine = results["machine"]
    lines = [
        "# Speed and memory of the engine",
        "",
        f"Made by `make bench`. CPU ({machine['processor']}), {machine['threads']} thread(s), fp32, torch "
        f"{machine['torch']}; medians of alternating runs in one process. One step: 6 questions on one image, k = 5. "
        "Memory is the peak of two steps above what Python and its libraries take, each route in a process of its own.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {HEADLINES[key]} | {_number(results[key])} |" for key in HEADLINES if key in results),
        "",
    ]
    for name in ("llava", "qwen2_vl"):
        lines += _model(name, results.get(name, {}))
    return "\n".join(lines)


def _model(name: str, found: dict) -> list[str]:
    lines: list[str] = []
    if "methods" in found:
        methods = found["methods"]
        peaks = {(r["method"], r["route"]): r["peak_mib"] for r in found.get("memory", [])}
        lines += [
            f"## {name}: {methods['parameters'] / 1e6:.0f} M parameters, {methods['image_tokens']} image tokens",
            "",
            f"Medians of {found['runs']['methods']['repeats']}.",
            "",
            "| method | route | s / step | questions / s | times plain | peak MiB | loss differs | gradient differs |",
            "|---|---|---|---|---|---|---|---|",
        ]
        seconds = {(r["method"], r["route"]): r["seconds"] for r in methods["rows"]}
        for r in methods["rows"]:
            plain = seconds.get((r["method"], "adapter off"))
            cells = [r["method"], r["route"], f"{r['seconds']:.2f}", f"{r['questions_per_second']:.2f}"]
            cells.append(f"{plain / r['seconds']:.1f}" if plain else "")
            peak = peaks.get((r["method"], r["route"]))
            cells.append(f"{peak:.0f}" if peak else "")
            cells += [f"{r[key]:.0e}" if key in r else "" for key in ("loss_difference", "gradient_difference")]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    for section, title in (
        ("growth", "How a step grows"),
        ("strangers", "Stranger: a step on 4 images with 3 questions each, k = 20, CPU seconds"),
        ("classes", "A step of every class with default arguments, in CPU seconds and in steps of gradient ascent"),
        ("people", "The store: people with one question each"),
        ("evaluation", "Evaluation"),
        ("sampling", "Sampled answers: 6 questions on each of 2 images, 16 answers to each, CPU seconds"),
        ("published", "MLLMU-Bench asked as published, CPU seconds"),
        ("features", "Features of a picture"),
    ):
        if section in found:
            repeats = found["runs"][section]["repeats"]
            lines += [f"### {title} ({name}, medians of {repeats})", "", *_plain_table(found[section]), ""]
    return lines


def _plain_table(rows: list[dict]) -> list[str]:
    columns = list(rows[0])
    table = ["| " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|" + "---|" * len(columns)]
    return table + ["| " + " | ".join(_number(row[c]) for c in columns) + " |" for row in rows]


def _number(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
