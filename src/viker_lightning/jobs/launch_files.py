"""Files that launch a grid on a cluster: a W&B sweep, a SLURM array. Both call ``cell``; a gold model is made once."""

import shlex

import yaml

MODULE = "viker_lightning.grids"


def sweep_file(grid: str, options: list[str], count: int) -> str:
    """A W&B sweep over so many cells of a grid, for ``wandb sweep FILE`` and any number of ``wandb agent``."""
    sweep = {
        "name": f"{grid} {options[0].partition('=')[2]}",
        "project": "viker-lightning",
        "method": "grid",
        "command": ["${env}", "python", "-m", MODULE, "cell", grid, *options, "${args}"],
        "parameters": {"number": {"values": list(range(count))}},
    }
    return yaml.safe_dump(sweep, sort_keys=False)


def slurm_script(grid: str, options: list[str], count: int, at_once: int, gpu: bool = True) -> str:
    """A batch script for ``sbatch``: one array task a cell of a grid, on a GPU each unless it is told otherwise."""
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
            "# A task that is stopped resumes where it was when it is submitted again.",
            f'srun {call} --number="$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )
