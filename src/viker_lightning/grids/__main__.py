"""``python -m viker_lightning.grids {run,table,cell,list,sweep,slurm,power} GRID``; see ``--help``."""

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console

from viker_lightning.errors import UserError, say
from viker_lightning.jobs.job import State
from viker_lightning.jobs.launch_files import slurm_script, sweep_file
from viker_lightning.jobs.processes import SWEPT
from viker_lightning.jobs.runner import Job, job_environments, run_jobs
from viker_lightning.storage.files import make_folder
from viker_lightning.terminal.failures import ending, ending_in_one_line
from viker_lightning.terminal.shown import Plain

from . import power
from .beside_gold import vanilla_first
from .cells import Cell
from .grid import Grid
from .grid_file import read_grid, rows_to_run
from .tables import Table, draw_figures, example_answers, key_token_note, legend, summary, write_table

COMMANDS = {
    "run": "run what is not finished, then write table and figures",
    "table": "write the table and figures of what is finished",
    "list": "print the command and state of every run",
    "cell": "run one cell, by its number in the list",
    "sweep": "print a W&B sweep over the cells",
    "slurm": "print a SLURM array job over the cells",
    "power": "say how many worlds show a difference, from a record of worlds; power --help has its options",
}


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["power"]:
        return power.main(words[1:])
    about = "\n".join(f"  {name:6} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="viker_lightning.grids", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=[name for name in COMMANDS if name != "power"])
    parser.add_argument("grid", type=Path, nargs="+", help="a file of experiments/; run and table take several")
    parser.add_argument("--scale", default="", help="of the grid, as mini; by default paper where there is a GPU")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=None, help="runs at a time; by default one a GPU or core")
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="run and list: of these alone, and what they are compared with"
    )
    parser.add_argument("--number", type=int, default=None, help="of the cell")
    given = parser.parse_args(words)
    console = Plain()
    with ending_in_one_line():
        if not given.scale:
            given.scale = "paper" if torch.cuda.is_available() else "mini"
            why = "a GPU is there" if torch.cuda.is_available() else "no GPU was found"
            print(f"scale: {given.scale}, since {why}; --scale (SCALE=) sets it", file=sys.stderr)
        grids = [(file, read_grid(file, given.scale, given.seeds)) for file in given.grid]
        if len(grids) > 1 and given.command not in ("run", "table"):
            raise UserError(f"{given.command}: found {len(grids)} grids, expected one")
        if given.rows and given.command not in ("run", "list"):
            raise UserError(f"--rows: found with {given.command}, expected run or list")
        failed = [runs for file, grid in grids if (runs := _carry_out(given, file, grid, console))]
        if failed:
            sys.exit(ending("; ".join(failed)))


def _carry_out(given: argparse.Namespace, file: Path, grid: Grid, console: Console) -> str:
    """Carries out a command for a grid; returns which runs failed."""
    cells = grid.cells(given.runs)
    kept = rows_to_run(file, grid, given.rows) if given.rows else {*grid.rows}
    place = [f"--scale={given.scale}", f"--seeds={given.seeds}", f"--runs={given.runs}"]
    if given.command == "list":
        for number, cell in enumerate(cells):
            if cell.row not in kept:
                continue
            say(f"{number}\t{cell.state()}\t{cell.title}\t{cell.command}")
    elif given.command == "cell":
        _run_cell(cells, given.number)
    elif given.command == "sweep":
        print(sweep_file(str(file), place, len(cells)), end="")
    elif given.command == "slurm":
        at_once = len(job_environments(given.jobs)) if given.jobs is not None else 8
        print(slurm_script(str(file), place, len(cells), at_once, gpu=given.scale != "mini"), end="")
    else:
        cells = [cell for cell in cells if cell.row in kept]
        if given.command == "run":
            make_folder("--runs", given.runs)
        jobs: list[Job] = [*vanilla_first(cells, given.jobs), *cells] if given.command == "run" else []
        failed = [job for job in run_jobs(jobs, given.jobs, console) if job in cells] if jobs else []
        _show(grid, given.runs, given.results, console)
        if failed:
            return f"{len(failed)} of {len(cells)} runs failed: {', '.join(c.title for c in failed)}"
    return ""


def _run_cell(cells: list[Cell], number: int | None) -> None:
    if number is None or not 0 <= number < len(cells):
        raise UserError(f"--number: found {number}, expected 0 to {len(cells) - 1}")
    if cells[number].run({name: os.environ[name] for name in SWEPT if name in os.environ}) != State.FINISHED:
        raise UserError(f"{cells[number].title}: {cells[number].complaint()}")


def _show(grid: Grid, out: Path, results: Path, console: Console) -> None:
    """Writes the table and its figures, and shows the numbers."""
    table = Table(grid, out)
    files = write_table(table, results) + draw_figures(table, results / "figures")
    for block in summary(table, console.width):
        console.print(block)
    console.print(legend(table), highlight=False)
    if answers := example_answers(table):
        console.print(answers)
    if note := key_token_note(table):
        console.print(note, highlight=False)
    console.print("tables and figures: " + ", ".join(map(str, files[1:])), soft_wrap=True, highlight=False)
    console.print(f"{files[0]} compares the runs: intervals, answers, key tokens, commands", soft_wrap=True)


if __name__ == "__main__":
    main()
