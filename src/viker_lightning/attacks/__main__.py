"""``python -m viker_lightning.attacks RUN --gold GOLD [GOLD ...]``: does it come back? See ``--help``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from viker_lightning import look_here_last
from viker_lightning.data.datasets import Benchmark
from viker_lightning.errors import UserError
from viker_lightning.jobs.job import State
from viker_lightning.jobs.processes import stop_with_parent
from viker_lightning.jobs.runner import run_jobs
from viker_lightning.models import Weights
from viker_lightning.models.families import import_family
from viker_lightning.reporting import write_attacks_page, write_report
from viker_lightning.storage.files import make_folder
from viker_lightning.storage.runs import names
from viker_lightning.terminal.commands import Listed
from viker_lightning.terminal.failures import ending, ending_in_one_line
from viker_lightning.terminal.quiet import quieten
from viker_lightning.terminal.shown import Plain
from viker_lightning.training.finished import FinishedRun, config_source, run_folder_of

from .base import Attack
from .material import Material, gather
from .record import show, write_record
from .settings import CLASSES, chosen, every
from .subject import NAMES, Name, Subject
from .to_wandb import log_attacks
from .unit import Unit

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    stop_with_parent()
    look_here_last()
    quieten()
    with ending_in_one_line():
        if failed := attack(parser().parse_args(arguments)):
            sys.exit(ending(failed))


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    about = "\n".join(f"  {name:10} {kind.about}" for name, kind in CLASSES.items())
    made = argparse.ArgumentParser(
        prog="python -m viker_lightning.attacks",
        description="Attacks an unlearned model, and gold and vanilla with the same budget; what is finished is kept.",
        epilog=f"attacks:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("run", help="folder of a finished run, an adapter/, a model folder, or a hub id")
    add("--gold", nargs="+", default=[], help="the same of one or several gold models, whose mean all is compared with")
    add("--vanilla", help="the same of the model before unlearning; by default the one the run names")
    add("--data_of", type=Path, metavar="RUN", help="run whose data are used; by default gold's, else the run's own")
    many: Any = {"nargs": "+", "action": Listed, "default": []}
    add("--only", **many, help="attacks, or class paths of your own; by default all")
    add("--on", **many, help="of run, gold and vanilla; by default all there are")
    add("--quick", action="store_true", help="a small budget, for a first look")
    add("--settings", type=Path, metavar="YAML", help="settings by name of an attack, as configs/attacks/mini.yaml")
    add("--people", type=int, help="attack at most so many of the people to be forgotten")
    add("--seed", type=int, default=0, help="of what attacks draw")
    add("--jobs", type=int, help="attacks at a time; by default one a GPU or core")
    add("--out", type=Path, help="folder that gets attacks/; by default that of the run")
    add("--wandb", metavar="PROJECT", help="note the numbers for W&B, too; offline, but for WANDB_MODE=online")
    add("--trust_remote_code", action="store_true", help="let code that comes with the weights run")
    add("--family", help="class path of the models' family, where this package has none for it")
    add("--here", action="store_true", help=argparse.SUPPRESS)  # what a unit's own process is told
    return made


def attack(given: argparse.Namespace) -> str:
    """Carries out what is not finished and writes what came of it; returns which attacks failed, empty if none."""
    units, now, material = plan(given)
    if not now:
        raise UserError("--on: nobody is left to attack; --vanilla names a vanilla model where the run names none")
    if given.here:
        for unit in now:
            unit.carry_out(material)
        return ""
    for unit in now:
        make_folder("--out" if unit.subject.name == "run" else f"--{unit.subject.name}", unit.folder.parent)
    failed = run_jobs(now, given.jobs, what="attacks")
    record, pages = write_results(given, units, now, material)
    if given.wandb:
        log_attacks(_home(given), given.wandb, record)
    console = Plain()
    show(record, console)
    console.print(f"{' and '.join(map(str, pages))} have every condition and command", soft_wrap=True)
    if failed:
        return f"{len(failed)} of {len(now)} attacks failed: {', '.join(unit.title for unit in failed)}"
    return ""


def plan(given: argparse.Namespace) -> tuple[list[Unit], list[Unit], Material]:
    """What there is to be carried out.

    Returns:
        All units of this run, its gold and its vanilla model; those that are asked for; whom they are about.
    """
    on = _attacked(given)
    if given.people is not None and given.people < 1:
        raise UserError(f"--people: found {given.people}, expected at least 1")
    attacks = chosen(given.only, given.quick, given.settings)
    run = FinishedRun.holding(given.run)
    wanted = {"run", "gold", *on, *(name for one in attacks for name in one.needs)}
    subjects = [subject for subject in _subjects(given, run) if subject.name in wanted]
    subjects = [replace(one, others=tuple(other for other in subjects if other is not one)) for one in subjects]
    known = {subject.name for subject in subjects}
    for one in attacks:
        if not given.here and not known.issuperset(one.needs):
            log.warning("%s: left out, since it needs a vanilla model and none is known; --vanilla names it", one.name)
    data = _data(given, run, subjects)
    if not given.here:
        _check_alike(subjects)
    material = gather(data, given.people, given.seed)
    if data.embedded and data.root.startswith("mini/") and not (given.settings or given.here):
        log.warning(
            "%s: these are the settings of papers, for real models; --settings configs/attacks/mini.yaml has those for "
            "embedded ones",
            data.root,
        )
    key = material.fingerprint()
    units = [
        Unit(one, subject, key, [*_shared_arguments(given, subject), f"--only={_name(one)}", f"--on={subject.label}"])
        for one in {one.name: one for one in (*every(given.only, given.quick, given.settings), *attacks)}.values()
        for subject in subjects
        if subject.name in one.subjects and known.issuperset(one.needs)
    ]
    now = [u for u in units if u.attack in attacks and {u.subject.name, u.subject.label} & {*on}]
    return units, now, material


def _attacked(given: argparse.Namespace) -> list[str]:
    """The names of who is attacked; an unknown one is an error."""
    on = given.on or [*NAMES]
    golds = [f"gold {number}" for number in range(2, len(given.gold) + 1)]
    if unknown := [name for name in on if name not in (*NAMES, *golds)]:
        raise UserError(f"--on: found {unknown[0]!r}, expected {', '.join(NAMES)}")
    return on


def write_results(
    given: argparse.Namespace, units: Sequence[Unit], now: Sequence[Unit], material: Material
) -> tuple[dict[str, Any], list[Path]]:
    """Writes and returns ``attacks.json`` and pages, of what is asked for and of what earlier commands finished."""
    home, run = _home(given), FinishedRun.holding(given.run)
    shown = [unit for unit in units if unit in now or unit.state() == State.FINISHED]
    record = write_record(home, shown, given.run, given.gold, material)
    pages = [write_attacks_page(home, f"Attacks on {Path(given.run).name}")]
    if run and home == run.folder:
        pages.append(write_report(run.folder, photos=run.option("report.photos", True)))
    return record, pages


def _home(given: argparse.Namespace) -> Path:
    """The folder that has ``attacks/``."""
    if given.out is not None:
        return Path(given.out)
    if not Path(given.run).is_dir():
        raise UserError(f"{given.run}: is no folder, so name one for the attempts with --out")
    return run_folder_of(given.run)


def _subjects(given: argparse.Namespace, run: FinishedRun | None) -> list[Subject]:
    """Who is attacked."""
    if not given.gold:
        raise UserError(
            "--gold: found none, expected the run folder of the gold model: what an attack gets out of a model says "
            "nothing without what it gets out of one that never met the people"
        )
    made = run.provenance if run else {}
    vanilla = given.vanilla or (made.get("base_weights") if made.get("method") else None)
    if vanilla and not given.vanilla and Path(vanilla).is_absolute() and not Path(vanilla).exists():
        log.warning("%s: the vanilla model it was made of is gone and not attacked; --vanilla names it", vanilla)
        vanilla = None
    like = run or FinishedRun.holding(given.gold[0])  # all are loaded alike
    family = import_family(given.family)
    weights = Weights(like.dtype if like else "float32", None, None, given.trust_remote_code, family)
    found = []
    sources: dict[Name, list[str]] = {"run": [given.run], "gold": given.gold, "vanilla": [vanilla] if vanilla else []}
    for name, some in sources.items():
        for number, source in enumerate(some, start=1):
            one = Subject(name, source, Path(), weights, like, number)
            found.append(replace(one, folder=_folder(given, one)))
    return found


def _folder(given: argparse.Namespace, subject: Subject) -> Path:
    """Where a subject's attempts are kept: in its own run folder, so that gold is attacked once; else in the run's."""
    inside = run_folder_of(subject.source)
    if subject.name == "run":
        return _home(given) / names.ATTACKS
    if names.is_finished(inside):
        return inside / names.ATTACKS
    return _home(given) / names.ATTACKS / subject.label.replace(" ", "-")


def _data(given: argparse.Namespace, run: FinishedRun | None, subjects: Sequence[Subject]) -> Benchmark:
    """The data of the attack."""
    golds = [found for source in given.gold if (found := FinishedRun.holding(source))]
    for gold in golds:
        if (stage := gold.option("data.init_args.stage", "unlearn")) != "gold":
            raise UserError(
                f"--gold: {gold.folder} is a run of data.stage {stage}, which may have met the people; give "
                "one of data.stage gold, as configs/mini/gold.yaml makes it"
            )
    of = FinishedRun.open(given.data_of, "--data_of") if given.data_of else [*golds, run][0]
    if of is None:
        raise UserError("--data_of: neither the run nor gold is a run folder, so name a run whose data are to be used")
    others = [one.source for one in subjects if one.name == "vanilla" and names.is_finished(run_folder_of(one.source))]
    for made in filter(None, (run, *golds, of, *map(FinishedRun.holding, others))):
        made.check_protocol()
    data = of.data()
    for made in filter(None, (run, *golds)):
        made.check_data(data.fingerprint(), of)
    return data


def _check_alike(subjects: list[Subject]) -> None:
    """Makes sure that all are models of one shape."""
    run, *others = subjects
    shape, seen = _shape(run), {run.fingerprint(): run.source}
    for one in others:
        if one.name == "gold" and (same := seen.setdefault(one.fingerprint(), one.source)) != one.source:
            raise UserError(f"--gold: {one.source} has the very weights of {same}; give models to compare with")
        if (other := _shape(one)) != shape:
            raise UserError(
                f"--{one.name}: {one.source} is another model ({other}) than {run.source} ({shape}); compare models "
                "of one base"
            )


def _shape(subject: Subject) -> str:
    source, trusted = config_source(subject.source), subject.weights.trust_remote_code
    try:
        config: Any = AutoConfig.from_pretrained(source, trust_remote_code=trusted)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{subject.source}: holds no model ({reason}); give a run, a model folder or a hub id"
        ) from error
    text = config.get_text_config()
    return f"{(config.architectures or ['unknown'])[0]}, {text.num_hidden_layers} layers of {text.hidden_size}"


def _shared_arguments(given: argparse.Namespace, subject: Subject) -> list[str]:
    """What a unit is told, whichever attack it is: of several gold models the first, whose data all are asked about."""
    said = [given.run, "--gold", *given.gold[: subject.number]]
    for name in ("vanilla", "data_of", "settings", "people", "out", "family"):
        if (value := getattr(given, name)) is not None:
            said.append(f"--{name}={value}")
    said += ["--quick"] * given.quick + ["--trust_remote_code"] * given.trust_remote_code
    return [*said, *([f"--seed={given.seed}"] if given.seed else [])]


def _name(one: Attack) -> str:
    """What ``--only`` calls an attack."""
    kind = type(one)
    return kind.name if CLASSES.get(kind.name) is kind else f"{kind.__module__}.{kind.__qualname__}"


if __name__ == "__main__":
    main()
