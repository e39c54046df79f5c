"""Tunes every method on the embedded benchmark: nine settings each, on fifty people of whom nothing is ever reported.

    python experiments/tune_mini.py [--methods npo viker] [--jobs 2]

The people are those of the embedded benchmark with another seed; they have a vanilla model of their own, made first.
Every setting is an ordinary run; finished ones are kept, so that the same command goes on where it was. All tried
settings and their numbers are written to ``experiments/tuning/mini.json``, which the tables of ``make table-mllmu``
carry along. The configs in ``configs/mini`` hold the setting with the highest score

    (retain + real) / 2 + template - repetition - 2 * test

(keyword match on retain, real and test; template probability and repetition on test).
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

from viker_lightning.data.cache import cache_folder
from viker_lightning.data.mini import write_benchmark
from viker_lightning.experiments.cells import Cell
from viker_lightning.experiments.runner import run_grid

RESULTS = Path("experiments/tuning/mini.json")
SEED = 1
"""Of the benchmark; the reported one is written with seed 0."""


def grid(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


LAM, RETAIN, BETA = "model.method.lam", "model.method.retain_weight", "model.method.beta"
LR, STEPS = "model.lr", "trainer.max_steps"
GRIDS = {
    "gradient_ascent": grid({LR: [5e-4, 1e-3], STEPS: [20, 30, 40]}) + grid({LR: [2e-3], STEPS: [10, 20, 30]}),
    "gradient_difference": grid({RETAIN: [1, 4, 10], STEPS: [40, 70, 100]}),
    "kl_minimization": grid({RETAIN: [1, 4, 10], STEPS: [40, 70, 100]}) + grid({RETAIN: [30], STEPS: [70, 100]}),
    "npo": grid({BETA: [0.1, 0.5], RETAIN: [1, 4, 10], STEPS: [100]})
    + grid({BETA: [0.5], RETAIN: [1, 4, 10], STEPS: [60]})
    + grid({BETA: [0.5], RETAIN: [30], STEPS: [60, 100]}),
    "idk": grid({LR: [1e-3, 3e-3], STEPS: [20, 40, 80]})
    + grid({LR: [1e-3, 3e-3], RETAIN: [10], STEPS: [80]})
    + grid({LR: [3e-3], RETAIN: [4], STEPS: [80]}),
    "viker": grid({LAM: [3, 10], RETAIN: [3, 10], STEPS: [100]})
    + grid({LAM: [10], RETAIN: [3, 10, 30], STEPS: [60]})
    + grid({LAM: [10], RETAIN: [30], STEPS: [100]})
    + grid({LAM: [30], RETAIN: [10], STEPS: [100]}),
}
"""Nine each, and two more for KL minimisation and NPO, so that a retain weight as large as ViKeR's is among theirs."""


def cells(methods: list[str], data: Path, out: Path) -> list[Cell]:
    """A run for every setting."""
    always = {
        "data.root": data,
        "data.max_people": 12,
        "data.splits": ["test", "retain", "real"],
        "evaluation.before": False,
    }
    return [
        Cell("tuning", method, str(setting), 0, f"configs/mini/{method}.yaml", setting | always, out / f"{method}-{i}")
        for method in methods
        for i, setting in enumerate(GRIDS[method])
    ]


def score(after: dict[str, dict[str, float]]) -> float:
    """See the module; higher is better."""
    known = (after["retain"]["keyword_match"] + after["real"]["keyword_match"]) / 2
    test = after["test"]
    return known + test["template_probability"] - test["repetition"] - 2 * test["keyword_match"]


def main() -> None:
    """Runs the settings that have no result yet and writes all of them down, the best of each method first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=None)
    args = parser.parse_args()
    data = write_benchmark(cache_folder("benchmarks", f"mini-tuning-{SEED}"), "default", SEED)
    tried = cells(args.methods, data, args.runs)
    failed = run_grid(tried, args.jobs)
    if failed:
        sys.exit(f"error: {len(failed)} of {len(tried)} runs failed; see log.txt in their folders")
    rows = []
    for cell in tried:
        after = json.loads((cell.folder / "results.json").read_text(encoding="utf-8"))["after"]
        setting = {name: cell.options[name] for name in (LR, BETA, LAM, RETAIN, STEPS) if name in cell.options}
        rows.append({"method": cell.block, "setting": setting, "score": round(score(after), 4), "after": after})
    rows.sort(key=lambda row: (args.methods.index(row["method"]), -row["score"]))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['score']:7.3f}  {row['method']}  {row['setting']}")


if __name__ == "__main__":
    main()
