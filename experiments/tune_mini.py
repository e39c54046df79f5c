"""Tunes every method on the embedded benchmark: eleven settings each, on fifty people of whom nothing is ever reported.

    python experiments/tune_mini.py [--methods npo viker] [--jobs 2]

The people are those of the embedded benchmark with another seed; they have a vanilla model of their own, made first.
Every setting is an ordinary run; finished ones are kept, so that the same command resumes where it stopped. The three
best settings of each method are run with two more seeds. All tried settings and their numbers are written to
``experiments/tuning/mini.json``, which the tables of ``make table-mllmu`` carry along. The configs in ``configs/mini``
hold, of those three, the setting with the highest mean score

    (retain + real) / 2 + template - repetition - 2 * test

(keyword match on retain, real and test; template probability and repetition on test).
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from viker_lightning.cache import cache_folder
from viker_lightning.embedded.benchmarks import PEOPLE
from viker_lightning.experiments import Cell, run_grid

RESULTS = Path("experiments/tuning/mini.json")
SEED = 1
"""Of the benchmark; the reported one is written with seed 0."""


def grid(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


LAM, RETAIN, BETA = "model.method.lam", "model.method.retain_weight", "model.method.beta"
LR, STEPS = "model.lr", "trainer.max_steps"
GRIDS = {
    "gradient_ascent": grid({LR: [5e-4, 1e-3], STEPS: [20, 30, 40]})
    + grid({LR: [2e-3], STEPS: [10, 20, 30]})
    + grid({LR: [1e-3], STEPS: [25]})
    + grid({LR: [5e-4], STEPS: [60]}),
    "gradient_difference": grid({RETAIN: [1, 4, 10], STEPS: [40, 70, 100]})
    + grid({RETAIN: [4], STEPS: [55]})
    + grid({RETAIN: [30], STEPS: [100]}),
    "kl_minimization": grid({RETAIN: [1, 4, 10], STEPS: [40, 70, 100]}) + grid({RETAIN: [30], STEPS: [70, 100]}),
    "npo": grid({BETA: [0.1, 0.5], RETAIN: [1, 4, 10], STEPS: [100]})
    + grid({BETA: [0.5], RETAIN: [1, 4, 10], STEPS: [60]})
    + grid({BETA: [0.5], RETAIN: [30], STEPS: [60, 100]}),
    "idk": grid({LR: [1e-3, 3e-3], STEPS: [20, 40, 80]})
    + grid({LR: [1e-3, 3e-3], RETAIN: [10], STEPS: [80]})
    + grid({LR: [3e-3], RETAIN: [4, 30], STEPS: [80]})
    + grid({LR: [3e-3], STEPS: [120]}),
    "viker": grid({LAM: [3, 10], RETAIN: [3, 10], STEPS: [100]})
    + grid({LAM: [10], RETAIN: [3, 10, 30], STEPS: [60]})
    + grid({LAM: [10], RETAIN: [30], STEPS: [100]})
    + grid({LAM: [30], RETAIN: [10, 30], STEPS: [100]})
    + grid({LAM: [10], RETAIN: [20], STEPS: [100]}),
}
"""Eleven each. Each method that has a retain weight had one as large as ViKeR's, 30."""
FINALISTS, SEEDS = 3, 3
"""How many settings of a method are run with how many seeds."""


def cell(method: str, number: int, seed: int, data: Path, out: Path) -> Cell:
    """A run with one of a method's settings."""
    setting = GRIDS[method][number]
    always = {
        "data.root": data,
        "data.max_people": 12,
        "data.splits": ["test", "retain", "real"],
        "evaluation.before": False,
    } | ({"seed_everything": seed} if seed else {})  # the configs have 0
    folder = out / f"{method}-{number}" if seed == 0 else out / f"{method}-{number}-seed-{seed}"
    return Cell("tuning", method, str(setting), seed, f"configs/mini/{method}.yaml", setting | always, folder)


def run_cells(cells: list[Cell], jobs: int | None) -> list[dict[str, dict[str, float]]]:
    """What each comes to after unlearning."""
    failed = run_grid(cells, jobs)
    if failed:
        sys.exit(f"error: {len(failed)} of {len(cells)} runs failed; see log.txt in their folders")
    return [json.loads((one.folder / "results.json").read_text(encoding="utf-8"))["after"] for one in cells]


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
    data = PEOPLE.write(cache_folder("benchmarks", f"mini-tuning-{SEED}"), "default", SEED)
    place = (data, args.runs)
    tried = [(method, number) for method in args.methods for number in range(len(GRIDS[method]))]
    first_seed = run_cells([cell(*setting, 0, *place) for setting in tried], args.jobs)
    afters = {setting: [after] for setting, after in zip(tried, first_seed, strict=True)}
    finalists = []
    for method in args.methods:
        ranked = sorted((one for one in tried if one[0] == method), key=lambda setting: -score(afters[setting][0]))
        finalists += ranked[:FINALISTS]
    again = [(setting, seed) for setting in finalists for seed in range(1, SEEDS)]
    other_seeds = run_cells([cell(*setting, seed, *place) for setting, seed in again], args.jobs)
    for (setting, _), after in zip(again, other_seeds, strict=True):
        afters[setting].append(after)
    rows = [
        {
            "method": method,
            "setting": GRIDS[method][number],
            "seeds": len(seeds),
            "score": round(mean(map(score, seeds)), 4),
            "after": seeds,
        }
        for (method, number), seeds in afters.items()
    ]
    earlier = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else []
    rows += [row for row in earlier if row["method"] not in args.methods]
    rows.sort(key=lambda row: (list(GRIDS).index(row["method"]), -row["seeds"], -row["score"]))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['score']:7.3f}  {row['seeds']} seeds  {row['method']}  {row['setting']}")


if __name__ == "__main__":
    main()
