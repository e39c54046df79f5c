"""The demo: a small multimodal LLM learns people, six methods make it forget some of them, one table shows it.

    python experiments/demo.py [--seeds 1] [--out runs/demo] [--size default]

Finished cells are kept: a second call shows the table at once. Every cell is an ordinary run, printed as the command
that makes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from viker_lightning.reporting import answers_table, key_token_table, method_table, write_comparison
from viker_lightning.runs import read_run

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("gradient_ascent", "gradient_difference", "kl_minimization", "npo", "idk", "viker")


def run_cell(config: Path, out: Path, *options: str) -> None:
    """Runs ``fit`` unless the folder holds a finished run of the same command, younger than configs and code."""
    command = [sys.executable, "-m", "viker_lightning", "fit", "--config", str(config.relative_to(ROOT)), *options]
    command.append(f"--trainer.default_root_dir={out}")
    results, noted = out / "results.json", out / "command.txt"
    sources = [*(ROOT / "configs/mini").glob("*.yaml"), *(ROOT / "src").rglob("*.py")]
    same = noted.is_file() and noted.read_text(encoding="utf-8") == "\n".join(command[1:])
    if same and results.is_file() and results.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        print(f"finished already: {out}")
        return
    print("$ python " + " ".join(command[1:]), flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"error: {config.name} stopped with exit code {done.returncode}; see above")
    noted.write_text("\n".join(command[1:]), encoding="utf-8")


def main() -> None:
    """Runs what is missing and shows the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="unlearning seeds 0..N-1; vanilla and gold are made once")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--size", default="default", help="embedded benchmark: ci, default or large")
    args = parser.parse_args()
    if args.seeds < 1:
        sys.exit(f"error: --seeds: found {args.seeds}, expected 1 or more")
    started = time.time()
    out = args.out.resolve()
    data = f"--data.root=mini/{args.size}"
    judge = "--evaluation.judge=configs/mini/vanilla.yaml"  # as the methods are judged
    run_cell(ROOT / "configs/mini/gold.yaml", out / "gold", data, judge)
    for seed in range(args.seeds):
        for method in METHODS:
            options = [data, f"--evaluation.gold={out / 'gold'}", f"--seed_everything={seed}"]
            options += [] if method == "viker" else ["--evaluation.before=false"]  # the vanilla row is needed once
            run_cell(ROOT / f"configs/mini/{method}.yaml", out / f"{method}-{seed}", *options)

    runs = {(method, seed): read_run(out / f"{method}-{seed}") for seed in range(args.seeds) for method in METHODS}
    shown = runs["viker", 0]
    rows = [("vanilla", 0, shown.before), ("gold", 0, read_run(out / "gold").after)]
    rows += [(method, seed, run.after) for (method, seed), run in runs.items()]
    console = Console()
    console.print(method_table([(name if args.seeds == 1 else f"{name} {seed}", found) for name, seed, found in rows]))
    for split in ("forget", "retain"):
        console.print(answers_table(shown, split, shown.people(split)[0]))
    console.print(key_token_table(shown.results["key_token_example"]))
    key = shown.results["key_tokens"]
    console.print(
        f"Key-token entropy finds private tokens with AUROC {key['auroc']:.3f}, first tokens of private parts with "
        f"{key['auroc_first']:.3f} ({key['private_tokens']} of {key['tokens']} tokens, k = {key['images']})."
    )
    page = write_comparison([out / "gold", *(run.folder for run in runs.values())], out / "comparison.html")
    console.print(f"{page} compares them; each run folder has its own report.html")
    summary = out / "summary.json"
    table = [{"method": name, "seed": seed, **found} for name, seed, found in rows]
    summary.write_text(json.dumps({"rows": table, "key_tokens": key}, indent=2) + "\n", encoding="utf-8")
    console.print(f"{summary} written; {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
