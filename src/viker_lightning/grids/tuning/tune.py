"""``python -m viker_lightning tune``: the same number of settings for every method, drawn from a file of spaces.

Every setting is run on every tuning world, as ordinary runs that share vanilla and gold of their world, and told to the
method's Optuna study with the mean of :mod:`closeness` over worlds. Studies are kept, so that a tuning that was stopped
goes on where it was, and one with more trials adds to what is there; a study whose space, worlds, options or YAMLs have
changed begins anew (of its own YAML what trials draw does not count). Methods draw in turn, one setting each, and what
a setting is depends on the method, its number and the settings before it alone: neither on ``--jobs``, nor on which run
ends first, nor on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console

from viker_lightning.errors import UserError, say
from viker_lightning.grids.cells import Cell
from viker_lightning.grids.compare import attacked, of_run
from viker_lightning.grids.grid import Grid, Row, config_option
from viker_lightning.jobs.runner import run_jobs
from viker_lightning.storage.runs import names
from viker_lightning.storage.runs.provenance import git_commit
from viker_lightning.storage.sources import PACKAGE, STARTING_WEIGHTS, fingerprint
from viker_lightning.terminal.commands import Listed, program
from viker_lightning.terminal.failures import ending_in_one_line
from viker_lightning.terminal.progress import Pace, clock
from viker_lightning.terminal.shown import Plain

from .closeness import INSIDE, KL, Models, Numbers, closeness, needed
from .page import write_tuning
from .spaces import Range, Space, Spaces, as_json, check_methods, drawn_from, read_spaces
from .tuning_record import PARTS, STARTUP, entry, setting_of, tried, write_record

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

GOLD, FLOOR, STEP, VANILLA = "gold", "gold, other seed", "one step", "vanilla"


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog=f"{program()} tune", description=str(__doc__).split(": ", 1)[1].splitlines()[0]
    )
    add = parser.add_argument
    add("--spaces", type=Path, default=Path("experiments/tuning/spaces.yaml"), help="methods, options, gold, worlds")
    add("--methods", nargs="+", action=Listed, help="by default all that have a space")
    add("--worlds", nargs="+", action=Listed, help="by default those of the spaces")
    add("--trials", type=int, default=12, help="settings a method")
    add("--jobs", type=int, help="runs at a time; by default one a GPU or core")
    add("--runs", type=Path, default=Path("runs/tuning"), help="folder of the runs")
    add("--record", type=Path, default=Path("docs/results/tuning-mini.json"), help="file of all settings tried")
    add("--results", type=Path, default=Path("results"), help="folder of page and figure")
    given = parser.parse_args(arguments)
    console = Plain()
    with ending_in_one_line():
        spaces = read_spaces(given.spaces)
        methods = list(dict.fromkeys(given.methods or spaces.methods))
        check_methods(methods, spaces, given.spaces)
        worlds = _seeds(given.worlds) if given.worlds else spaces.worlds
        if given.trials < 1:
            raise UserError(f"--trials: found {given.trials}, expected 1 or more")
        failed = tune(spaces, methods, worlds, given.trials, given.jobs, given.runs, given.record, console)
        files = write_tuning(given.record, given.results)
        console.print(f"{given.record}; beside it: {', '.join(map(str, files))}", soft_wrap=True, highlight=False)
        if failed:
            sys.exit(f"error: {len(failed)} settings failed and have no score: {', '.join(failed)}")


def _seeds(worlds: list[str]) -> list[int]:
    if wrong := [one for one in worlds if not one.isdecimal()]:
        raise UserError(f"--worlds: found {wrong[0]!r}, expected whole numbers, as 100 101")
    return [int(one) for one in dict.fromkeys(worlds)]


def tune(
    spaces: Spaces,
    methods: Sequence[str],
    worlds: Sequence[int],
    trials: int,
    jobs: int | None,
    runs: Path,
    record: Path,
    console: Console,
) -> list[str]:
    """Has every method try settings until it has tried so many; returns those of which a run failed, by their names.

    Settings of earlier calls count. The record is written after each round; what it says of other methods is kept.
    """
    with _alone(runs):
        studies = {name: open_study(runs, name, spaces, worlds) for name in methods}
        ahead = sum(max(0, trials - len(tried(study))) for study in studies.values())
        pace, done = Pace(), 0
        if ahead:
            models = f"vanilla and two gold models of {len(worlds)} worlds"
            say(f"{ahead * len(worlds)} runs, and {models} where they are not made yet; the time is told after a round")
        while left := [name for name in methods if len(tried(studies[name])) < trials]:
            time_left = f"; about {clock(pace.gone / done * (ahead - done))} left" if done else ""
            asked = {name: ask(studies[name], name, spaces.methods[name], spaces.config(name)) for name in left}
            numbers = ", ".join(f"{name} {trial.number + 1}" for name, trial in asked.items())
            console.print(f"settings of {trials}: {numbers}{time_left}", highlight=False, soft_wrap=True)
            _run(spaces, worlds, studies, asked, jobs, runs, console)
            done += len(left)
            write_record(record, spaces, studies, worlds)
        write_record(record, spaces, studies, worlds)
    for name, study in studies.items():
        console.print(_in_words(name, entry(spaces, name, study, worlds)), highlight=False, soft_wrap=True)
    return [f"{name} {one.number}" for name, study in studies.items() for one in tried(study) if one.value is None]


def open_study(runs: Path, method: str, spaces: Spaces, worlds: Sequence[int]) -> Study:
    """The study of a method; another one if what its trials have in common has changed.

    That is space, worlds, the options of every run, the packaged model, and the YAMLs of the method, of gold and of the
    vanilla model, see :func:`~viker_lightning.grids.tuning.spaces.drawn_from`.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("tuning needs optuna; pip install -e '.[tune]' in the repository") from error
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made_of = [
        spaces.root,
        list(worlds),
        spaces.options,
        as_json(spaces.methods[method]),
        fingerprint({"weights": PACKAGE / STARTING_WEIGHTS}),
        drawn_from(spaces, method),
        *INSIDE * (method in spaces.attacked),
    ]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:8]
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(runs / f"{method}.journal")))
    return optuna.create_study(study_name=f"{method}-{digest}", storage=storage, load_if_exists=True)


def ask(study: Study, method: str, space: Space, config: str = "") -> Trial:
    """The trial that was begun and not ended, else a new one; its parameters are drawn.

    The first of all is what the method's YAML has, as far as the space knows it. A new one's sampler is seeded by
    method and number, so that nobody need know how many draws came before, and the first ones are the same whichever
    the worlds are.
    """
    import optuna

    begun = [one for one in study.get_trials() if not one.state.is_finished()]
    number = begun[0].number if begun else len(study.get_trials())
    seed = int(hashlib.sha256(f"{method}/{number}".encode()).hexdigest()[:8], 16)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
    if number == 0 and not begun and config:
        shipped = {option: config_option(config, option) for option in space}
        known = {o: float(v) if isinstance(space[o], Range) else v for o, v in shipped.items() if v is not None}
        study.enqueue_trial({option: value for option, value in known.items() if space[option].holds(value)})
    trial = optuna.trial.Trial(study, begun[0]._trial_id) if begun else study.ask()
    setting_of(trial, space)
    return trial


def world_grid(spaces: Spaces, worlds: Sequence[int], rows: dict[str, Row]) -> Grid:
    """A grid whose blocks are worlds: vanilla, two gold models, and settings of methods."""
    shared = {key: value for key, value in spaces.options.items() if not key.startswith("model.")}
    gold = Row(GOLD, str(spaces.gold), shared | {"evaluation.judge": None})
    step = Row(STEP, spaces.config(next(iter(spaces.methods))), {"trainer.max_steps": 1})
    models = [gold, Row(FLOOR, gold.config, gold.options, again=GOLD), step, Row(VANILLA, before=STEP)]
    return Grid(
        name="tuning",
        title="Tuning",
        scale="mini",
        note="",
        columns={},
        blocks={str(seed): {"data.root": f"{spaces.root}@{seed}"} for seed in worlds},
        rows={row.name: row for row in models} | rows,
        gold=GOLD,
        reference="",
        seeds=1,
        options=spaces.options,
    )


def _run(
    spaces: Spaces,
    worlds: Sequence[int],
    studies: dict[str, Study],
    asked: dict[str, Trial],
    jobs: int | None,
    runs: Path,
    console: Console,
) -> None:
    """Runs a setting of each method on all worlds, and tells the studies what came of them."""
    import optuna

    drawn = {f"{name} {trial.number}": setting_of(trial, spaces.methods[name]) for name, trial in asked.items()}
    rows = {row: Row(row, spaces.config(row.split()[0]), setting) for row, setting in drawn.items()}
    cells = world_grid(spaces, worlds, rows).cells(runs)
    failed = {(cell.block, cell.row): cell for cell in run_jobs(cells, jobs, console)}
    if wrong := next((cell for cell in failed.values() if cell.row not in rows), None):
        raise UserError(f"{wrong.title}: {wrong.complaint()}")
    of = {(cell.block, cell.row): cell for cell in cells}
    models = {str(seed): models_of(of, str(seed)) for seed in worlds}
    whole = [cell for cell in cells if cell.row.split()[0] in spaces.attacked and (cell.block, cell.row) not in failed]
    more = _more_than_gold(whole, jobs)
    for name, trial in asked.items():
        row, study, values, found = f"{name} {trial.number}", studies[name], {}, {}
        study.set_user_attr("models", {world: asdict(one) for world, one in models.items()})
        trial.set_user_attr("commit", git_commit())
        wrong = next((cell for (_, one), cell in failed.items() if one == row), None)
        if wrong:
            trial.set_user_attr("error", f"{wrong.title}: {wrong.complaint()}")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for world, one in models.items():
            values[world] = scores_of(of[world, row], "after")
            found[world] = closeness(values[world], one, more.get((world, row)))
        trial.set_user_attr("values", values)
        trial.set_user_attr("closeness", {world: asdict(one) for world, one in found.items()})
        study.tell(trial, mean(one.score for one in found.values()))


def _more_than_gold(cells: Sequence[Cell], jobs: int | None) -> dict[tuple[str, str], dict[str, float]]:
    """What the attacks of the third part find more than in gold, by world and row."""
    if not cells:
        return {}
    golds = {cell.block: [cell.gold.folder] for cell in cells if cell.gold}
    settings = Path("viker_lightning:attacks/mini.yaml")
    records, failed, _ = attacked(cells, golds, ",".join(INSIDE), settings=settings, jobs=jobs)
    if failed:
        raise UserError(f"{failed[0].title}: {failed[0].complaint()}")
    return {
        (world, row): {attack: of["more_than_gold"] for attack, of in of_run(record).items()}
        for (world, row, _), record in records.items()
    }


def models_of(cells: Mapping[tuple[str, str], Cell], world: str) -> Models:
    """Scores of a world's vanilla and gold models."""
    return Models(
        vanilla=scores_of(cells[world, STEP], "before"),
        gold=scores_of(cells[world, GOLD], "after", leave_out=KL),
        floor=scores_of(cells[world, FLOOR], "after"),
    )


def scores_of(cell: Cell, when: str, leave_out: str = "") -> Numbers:
    """What :func:`~viker_lightning.grids.tuning.closeness.closeness` reads of a finished run."""
    file = cell.folder / names.RESULTS
    found = json.loads(file.read_text(encoding="utf-8"))
    return needed(found[when], f"{file}, {when}", leave_out)


def _in_words(name: str, of: dict[str, Any]) -> str:
    best = next((one for one in of["trials"] if one["number"] == of["best"]), None)
    if best is None:
        return f"{name}: no setting has a score"
    edges = "".join(f"; {option} is at its {end} edge" for option, end in of["edges"].items() if end)
    chosen = ", ".join(f"{option}={value}" for option, value in best["setting"].items())
    parts = ", ".join(f"{part} {best[part]:.3f}" for part in PARTS if part in best)
    return f"{name}: {best['score']:.3f} ({parts}), of {len(of['trials'])}: {chosen}{edges}"


@contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Holds a folder of runs: two tunings would go on with each other's trials."""
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(runs / "tune.lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"{runs}: another tuning is at work here; wait for it, or give another folder as --runs"
        ) from error
