"""A grid for a cluster: as a W&B sweep, or as a SLURM array. Both call ``cell``, which makes a gold model once."""

from __future__ import annotations

import shlex

import yaml

MODULE = "viker_lightning.experiments"


def sweep(grid: str, options: list[str], count: int) -> str:
    """A W&B sweep over the cells of a grid, for ``wandb sweep FILE`` and any number of ``wandb agent``.

    Args:
        grid: path of the grid.
        options: scale, seeds and folder of the runs, as on the command line.
        count: how many cells there are.
    """
    call = ["${env}", "python", "-m", MODULE, "cell", grid, *options, "${args}"]
    parameters = {"number": {"values": list(range(count))}}
    found = {
        "name": f"{grid} {options[0].partition('=')[2]}",
        "project": "viker-lightning",
        "method": "grid",
        "command": call,
    }
    return yaml.safe_dump({**found, "parameters": parameters}, sort_keys=False)


def slurm(grid: str, options: list[str], count: int, at_once: int, gpu: bool = True) -> str:
    """A batch script for ``sbatch``: one array task a cell.

    Args:
        grid: path of the grid.
        options: scale, seeds and folder of the runs, as on the command line.
        count: how many cells there are.
        at_once: most tasks at the same time.
        gpu: whether a task asks for one.
    """
    call = shlex.join(["python", "-m", MODULE, "cell", grid, *options])
    return "\n".join(
        [
            "#!/bin/bash",
            "#SBATCH --job-name=viker-lightning",
            f"#SBATCH --array=0-{count - 1}%{at_once}",
            *(["#SBATCH --gpus=1"] if gpu else []),
            "#SBATCH --time=08:00:00",
            "#SBATCH --signal=SIGTERM@120",
            "#SBATCH --output=slurm-%A_%a.log",
            "# A task that is stopped goes on where it was when it is submitted again.",
            f'srun {call} --number="$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )
