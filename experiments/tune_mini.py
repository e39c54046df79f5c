"""Tunes every method on the embedded benchmark: six settings each, on people who are not the reported forget set.

    python experiments/tune_mini.py --vanilla runs/mini/vanilla [--methods npo viker]

The forget set is replaced by four people of the reported retain set (a benchmark of 40 has none to spare for tuning);
the vanilla model stays. All tried settings and their numbers are kept in ``experiments/tuning/mini.json``. The shipped
configs hold the setting with the highest score

    (retain + real) / 2 + template - repetition - 2 * test

(keyword match on retain, real and test; template probability and repetition on test).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from viker_lightning.cli import main as run
from viker_lightning.data.mllmu import MLLMU

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments/tuning/mini.json"


def grid(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


LAM, RETAIN, BETA = "model.method.lam", "model.method.retain_weight", "model.method.beta"
LR, STEPS = "model.lr", "trainer.max_steps"
GRIDS = {
    "gradient_ascent": grid({LR: [5e-4, 1e-3], STEPS: [20, 30, 40]}),
    "gradient_difference": grid({RETAIN: [1, 4], STEPS: [40, 70, 100]}),
    "kl_minimization": grid({RETAIN: [1, 4], STEPS: [40, 70, 100]}),
    "npo": grid({BETA: [0.1, 0.5], RETAIN: [1, 4], STEPS: [100]}) + grid({BETA: [0.5], RETAIN: [1, 4], STEPS: [60]}),
    "idk": grid({LR: [1e-3, 3e-3], STEPS: [20, 40, 80]}),
    "viker": grid({LAM: [3, 10], RETAIN: [3, 10], STEPS: [100]}) + grid({LAM: [10], RETAIN: [3, 10], STEPS: [60]}),
}


def tuning_folder(out: Path) -> Path:
    """A copy of the benchmark that forgets four other people."""
    data = MLLMU("mini/default")
    data.prepare_data()
    data.setup()
    shutil.copytree(data.folder, out, dirs_exist_ok=True)
    largest = set(pq.read_table(data.folder / "forget_15")["ID"].to_pylist())
    others = [p.id for p in data.people() if p.id not in largest]
    chosen = set(random.Random("tuning").sample(others, len(data.forget_ids)))
    full = pq.read_table(data.folder / "Full_Set").drop_columns(["Directory"])
    for config, inside in (("forget_10", True), ("retain_90", False)):
        mask = pa.array([(i in chosen) == inside for i in full["ID"].to_pylist()])
        pq.write_table(full.filter(mask), next((out / config).glob("*.parquet")))
    return out


def score(after: dict[str, dict[str, float]]) -> float:
    """See the module; higher is better."""
    known = (after["retain"]["keyword_match"] + after["real"]["keyword_match"]) / 2
    test = after["test"]
    return known + test["template_probability"] - test["repetition"] - 2 * test["keyword_match"]


def main() -> None:
    """Runs the settings that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vanilla", required=True)
    parser.add_argument("--methods", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(args.results.read_text()) if args.results.is_file() else []
    with tempfile.TemporaryDirectory() as work:
        root = tuning_folder(Path(work) / "benchmark")
        for method in args.methods:
            for setting in GRIDS[method]:
                if any(r["method"] == method and r["setting"] == setting for r in rows):
                    continue
                out = Path(work) / "run"
                options = [f"--{key}={value}" for key, value in setting.items()]
                options += [f"--model.vanilla={args.vanilla}", f"--data.root={root}", "--data.max_people=12"]
                options += ["--data.splits=[test,retain,real]", "--evaluation.before=false"]
                options += [f"--trainer.default_root_dir={out}", "--trainer.enable_progress_bar=false"]
                run(["fit", f"--config={ROOT / 'configs/mini' / f'{method}.yaml'}", *options])
                after = json.loads((out / "results.json").read_text())["after"]
                rows.append({"method": method, "setting": setting, "score": score(after), "after": after})
                args.results.write_text(json.dumps(rows, indent=1) + "\n")
                print(method, setting, round(rows[-1]["score"], 3), flush=True)


if __name__ == "__main__":
    main()
