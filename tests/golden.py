"""Golden runs: what the command line gives before and after a change that must not change any number.

    python tests/golden.py record before    # on the commit to compare with
    python tests/golden.py record after     # with the change
    python tests/golden.py compare before after

One thread and tiny models: numbers are equal to the last bit on one machine, so any difference is a change.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from viker_lightning.data.embedded import vision_tower
from viker_lightning.storage.cache import cache_folder

ROOT = Path(__file__).parent.parent
COMMON = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
PEOPLE = ["--data.root=mini/ci", "--data.max_people=2"]
OPEN = ["--gate.knowledge=0", "--gate.follows_image=0", "--gate.follows_text=1"]
UNLEARN = [*PEOPLE, *OPEN, "--trainer.max_steps=6", "--model.vanilla={runs}/vanilla", "--evaluation.gold={runs}/gold"]
AUTHORS = [*OPEN, "--data.root=mini/ci", "--data.forget=10", "--data.max_people=1", "--model.dtype=float32"]
AUTHORS += ["--data.batch_size=72", "--data.questions_per_image=36", "--trainer.max_epochs=1"]
AUTHORS += ["--model.vanilla={runs}/authors_vanilla"]
WRITERS = ["--data.root=mini/clear-ci", "--data.max_people=2"]

RUNS = {
    "vanilla": ["--config=configs/mini/vanilla.yaml", *PEOPLE, "--trainer.max_steps=40"],
    "gold": ["--config=configs/mini/gold.yaml", *PEOPLE, "--trainer.max_steps=40"],
    "viker": ["--config=configs/mini/viker.yaml", *UNLEARN, "--evaluation.every_n_epochs=1", "--data.batch_size=24"],
    "npo": ["--config=configs/mini/npo.yaml", *UNLEARN],
    "kl_minimization": ["--config=configs/mini/kl_minimization.yaml", *UNLEARN],
    "idk": ["--config=configs/mini/idk.yaml", *UNLEARN],
    "both": [
        "--config=configs/mini/viker.yaml",
        *UNLEARN,
        "--data.modality=both",
        "--trainer.accumulate_grad_batches=2",
    ],
    "full": ["--config=configs/mini/gradient_difference.yaml", *UNLEARN, "--model.lora=null", "--model.lr=1e-5"],
    "authors_vanilla": [
        *("--config=configs/mllmu/published_vanilla.yaml", "--data.root=mini/ci", "--data.forget=10"),
        *("--data.max_people=1", "--model.dtype=float32", "--model.base=mini", "--trainer.max_steps=20"),
    ],
    "authors_kl": ["--config=configs/mllmu/published.yaml", *AUTHORS],
    "authors_ga": ["--config=configs/mllmu/published_ga.yaml", *AUTHORS],
    "clear_vanilla": ["--config=configs/clear/mini_vanilla.yaml", *WRITERS, "--trainer.max_steps=40"],
    "clear_gold": ["--config=configs/clear/mini_gold.yaml", *WRITERS, "--trainer.max_steps=40"],
    "clear_viker": [
        *("--config=configs/clear/mini_viker.yaml", *WRITERS, *OPEN, "--trainer.max_steps=6"),
        *("--model.vanilla={runs}/clear_vanilla", "--evaluation.gold={runs}/clear_gold"),
    ],
}
"""Options of ``fit`` by run, in an order in which each finds what it needs."""

WORDS = ("metrics", "other_weights", "weights")
"""Keys of results.json that hold texts and places."""


def record(folder: Path) -> None:
    """Makes all golden runs below a folder, with caches of their own and an untrained vision tower."""
    folder = folder.resolve()
    os.environ |= {"VIKER_LIGHTNING_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**vision_tower.CONFIG))
    tower.save_pretrained(cache_folder("models", f"mini-tower-{vision_tower.fingerprint()}"))
    runs = folder / "runs"
    for name, options in RUNS.items():
        if (runs / name / "results.json").is_file():
            continue
        run = [f"--trainer.default_root_dir={runs / name}", *COMMON]
        logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(runs / name), "name": "", "version": ""}}
        given = [*(option.format(runs=runs) for option in options), *run, f"--trainer.logger={json.dumps(logger)}"]
        print(name, flush=True)
        subprocess.run([sys.executable, "-m", "viker_lightning", "fit", *given], cwd=ROOT, check=True)


def numbers_of(page: str) -> list[str]:
    """All numbers with decimals that a page shows, in its order; no paths and no pictures."""
    page = re.sub(r"<(script|style).*?</\1>|data:[^\"')]*", "", page, flags=re.S)
    return re.findall(r"(?<![\w./-])\d*\.\d+(?![\w./-])", page)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What was trained."""
    adapter = run / "adapter/adapter_model.safetensors"
    return load_file(adapter if adapter.is_file() else run / "model/model.safetensors")


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two run folders, in a few words each."""
    found = []
    first, second = (json.loads((run / "results.json").read_text()) for run in (one, two))
    keys = (first.keys() | second.keys()) - set(WORDS)
    found += [f"results.json: {key}" for key in sorted(keys) if first.get(key) != second.get(key)]
    tables = [pq.read_table(run / "predictions.parquet").to_pylist() for run in (one, two)]
    if repr(tables[0]) != repr(tables[1]):
        found.append("predictions.parquet")
    old, new = weights(one), weights(two)
    if old.keys() != new.keys() or not all(torch.equal(old[name], new[name]) for name in old):
        found.append("weights")
    pages = [numbers_of((run / "report.html").read_text()) for run in (one, two)]
    if pages[0] != pages[1]:
        found.append(f"report.html: {len(pages[0])} and {len(pages[1])} numbers")
    curves = [
        [line for line in (run / "metrics.csv").read_text().splitlines() if "seconds" not in line] for run in (one, two)
    ]
    if len(curves[0]) != len(curves[1]):
        found.append("metrics.csv")
    return found


def compare(one: Path, two: Path) -> int:
    """Prints what differs between two recordings, run by run; 1 if anything does."""
    status = 0
    for name in RUNS:
        found = differences(one / "runs" / name, two / "runs" / name)
        print(f"{name}: {'; '.join(found) or 'equal'}")
        status |= bool(found)
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("folder", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    given = parser.parse_args()
    sys.exit(record(given.folder) if given.command == "record" else compare(given.before, given.after))
