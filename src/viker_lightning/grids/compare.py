"""``python -m viker_lightning.grids.compare GRID``: the same attacks on every run of a grid, as a table."""

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from viker_lightning.attacks.__main__ import parser, plan, write_results
from viker_lightning.attacks.kinds.relearn import ADAPTER, EVERYBODY, Relearn
from viker_lightning.attacks.unit import Unit
from viker_lightning.errors import UserError
from viker_lightning.jobs.job import State
from viker_lightning.jobs.runner import run_jobs
from viker_lightning.metrics.statistics.paired import ALPHA, equivalence, fewest, holm, sign_flip
from viker_lightning.reporting import section
from viker_lightning.reporting.attacked import is_gold, more_than_gold, worst, worst_of_golds
from viker_lightning.reporting.section import Section, escaped
from viker_lightning.storage.files import write_json, write_text
from viker_lightning.storage.runs import names, read_run
from viker_lightning.storage.runs.provenance import git_commit
from viker_lightning.storage.secrets import hide
from viker_lightning.storage.sources import code_fingerprint
from viker_lightning.terminal.commands import Listed, listed
from viker_lightning.terminal.failures import ending, ending_in_one_line
from viker_lightning.terminal.quiet import quieten
from viker_lightning.terminal.shown import Plain

from .cells import Cell
from .grid import Grid
from .grid_file import read_grid, rows_to_run

log = logging.getLogger(__name__)

MODULE = "viker_lightning.grids.compare"
WHO = ("run", "gold")
MARGINS = {1.0: 0.05, 0.0: 0.10}
"""How far from gold counts as equivalent: where something is said (1), and for what is inside (0)."""

Values = dict[str, dict[str, float]]
"""Of one run: by attack ``run`` and ``gold``, the condition that leaks most of each, ``more_than_gold``, ``kept``,
``says``, whether a hit is something that is said (1) or what is inside (0),
``as_asked`` and ``gold_as_asked``, and ``run_chance`` and ``gold_chance``, what guessing gives, where the attack knows
it."""


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    made = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description="Attacks every finished run of a grid that has a gold model, and that model, and writes a table.",
    )
    made.add_argument("grid", type=Path, help="a file of experiments/, whose runs were made by make table-..., worlds")
    made.add_argument("--scale", default="mini", help="of the grid")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--rows", nargs="+", metavar="ROW", help="of these alone")
    made.add_argument("--blocks", nargs="+", metavar="BLOCK", help="of these alone, e.g. worlds")
    made.add_argument("--runs", type=Path, default=Path("runs/tables"))
    made.add_argument("--results", type=Path, default=Path("results"))
    made.add_argument(
        "--only", nargs="+", action=Listed, default=[], help="as of viker_lightning.attacks, like what follows"
    )
    made.add_argument("--quick", action="store_true")
    made.add_argument("--settings", type=Path)
    made.add_argument("--jobs", type=int)
    quieten()
    with ending_in_one_line():
        said = sys.argv[1:] if arguments is None else arguments
        if failed := _table(made.parse_args(said), f"python -m {MODULE} {hide(shlex.join(said))}"):
            sys.exit(ending(failed))


def _table(given: argparse.Namespace, command: str) -> str:
    """Attacks what is not attacked yet and writes the table; returns which attacks failed."""
    grid = read_grid(given.grid, given.scale, given.seeds)
    cells = _finished_cells(grid, given)
    golds = gold_folders(grid, given.runs)
    records, failed, asked = attacked(cells, golds, ",".join(given.only), given.quick, given.settings, given.jobs)
    found = {key: of_run(record) for key, record in records.items()}
    table = {
        "grid": grid.name,
        "scale": grid.scale,
        "code": code_fingerprint(),
        "command": command,
        "commits": {
            "attacks": git_commit(),
            "runs": sorted({str(read_run(cell.folder).provenance.get("git_commit")) for cell in cells}),
        },
        "settings": {
            name: attack["settings"] for record in records.values() for name, attack in record["attacks"].items()
        },
        "values": [{"block": b, "row": r, "seed": s, "attacks": of} for (b, r, s), of in found.items()],
        "back": [{"block": b, "row": r, "seed": s} | record["back"] for (b, r, s), record in records.items()],
        "rows": summarised(found),
        "relearning": relearning(records),
    }
    name = f"attacks-{grid.name}-{grid.scale}"
    write_json(given.results / f"{name}.json", table)
    write_text(given.results / f"{name}.md", markdown(table))
    Plain().print(markdown(table, escape=str), soft_wrap=True, highlight=False)
    print(given.results / f"{name}.md")
    if failed:
        return f"{len(failed)} of {asked} attacks failed: {', '.join(unit.title for unit in failed)}"
    return ""


def gold_folders(grid: Grid, runs: Path) -> dict[str, list[Path]]:
    """All gold models of each block, the first one first."""
    found: dict[str, list[Path]] = {}
    for cell in grid.cells(runs):
        if grid.kind(cell.row) in ("gold", "floor"):
            found.setdefault(cell.block, []).append(cell.folder)
    return found


def attacked(
    cells: Sequence[Cell],
    golds: Mapping[str, Sequence[Path]],
    only: str,
    quick: bool = False,
    settings: Path | None = None,
    jobs: int | None = None,
) -> tuple[dict[tuple[str, str, int], dict[str, Any]], list[Unit], int]:
    """Attacks finished runs and their gold models, each gold once for all that are compared with it.

    Args:
        cells: the runs; one that is a gold model itself is compared with the others.
        golds: folders of gold models by block.
        only: attacks, with commas between them; empty for all but costly ones.
        quick: whether with a small budget.
        settings: YAML of the attacks.
        jobs: attacks at a time; by default one a GPU or core.

    Returns:
        Records by block, row and seed, of the attacks named alone; those that failed; and how many there were.
    """
    planned: dict[tuple[str, str, int], tuple[argparse.Namespace, list[Unit], list[Unit], Any]] = {}
    for cell in cells:
        said = parser().parse_args(_arguments(cell, golds[cell.block], only, quick, settings))
        planned[cell.block, cell.row, cell.seed] = (said, *plan(said))
    wanted = {str(unit.folder): unit for _, _, now, _ in planned.values() for unit in now}
    failed = run_jobs([*wanted.values()], jobs, what="attacks")
    records = {key: _of_now(write_results(*of)[0], of[2]) for key, of in planned.items()}
    return records, failed, len(wanted)


def _finished_cells(grid: Grid, given: argparse.Namespace) -> list[Cell]:
    """The runs that the command names; it is an error if there are none, or one is not finished."""
    rows = rows_to_run(given.grid, grid, given.rows) if given.rows else {*grid.rows}
    blocks = listed(given.blocks, grid.blocks) if given.blocks else grid.blocks
    cells = [cell for cell in grid.cells(given.runs) if cell.gold and cell.row in rows and cell.block in blocks]
    missing = [cell for cell in cells if not names.is_finished(cell.folder)]
    if missing or not cells:
        what = f"{len(missing)} of {len(cells)} runs are not finished, e.g. {missing[0].title}" if missing else "no run"
        raise UserError(f"{given.grid}: {what}; make them first: python -m viker_lightning.grids run {given.grid}")
    if older := sum(cell.state() != State.FINISHED for cell in cells):
        other = "%s: %d of %d runs were made by other code than this; they are attacked as they are"
        log.warning(other, given.grid, older, len(cells))
    return cells


def _of_now(record: dict[str, Any], now: Sequence[Unit]) -> dict[str, Any]:
    """A record without attacks of earlier commands: a table is of what its own command names."""
    named = {unit.attack.name for unit in now}
    return record | {"attacks": {name: attack for name, attack in record["attacks"].items() if name in named}}


def _arguments(cell: Cell, golds: Sequence[Path], only: str, quick: bool, settings: Path | None) -> list[str]:
    others = [str(folder) for folder in golds if folder != cell.folder]
    said = [str(cell.folder), "--gold", *others, "--on=run,gold"]
    said += [f"--only={only}"] * bool(only) + ["--quick"] * quick
    return [*said, *([f"--settings={settings}"] if settings else [])]


def of_run(record: Mapping[str, Any]) -> Values:
    """What a table shows of a record: of each attack that was carried out the condition that leaks most.

    The worst condition of every gold is its own: the most of several chances is more than any one of them, for gold
    too. Of several gold models all numbers are means.
    """
    found: Values = {}
    for name, attack in record["attacks"].items():
        rows = attack.get("conditions", [])
        run, golds = worst(rows), worst_of_golds(rows)
        if run is None or not golds:
            continue
        found[name] = {"run": run["run"]["forget"], "gold": mean(gold["forget"] for gold in golds)}
        found[name]["more_than_gold"] = more_than_gold(run["run"], golds)
        found[name]["says"] = float(attack["says"])
        chances = {"run": [run["run"]], "gold": golds}
        known = {who: [of["chance"] for of in some if "chance" in of] for who, some in chances.items()}
        found[name] |= {f"{who}_chance": mean(values) for who, values in known.items() if values}
        if "retain" in run["run"]:
            found[name]["kept"] = run["run"]["retain"]
        clean = next((row for row in rows if row["clean"] and "forget" in row.get("run", {})), None)
        if clean:
            found[name]["as_asked"] = clean["run"]["forget"]
            plainly = [of["forget"] for who, of in clean.items() if is_gold(who) and "forget" in of]
            found[name] |= {"gold_as_asked": mean(plainly)} if plainly else {}
    return found


def summarised(found: Mapping[tuple[str, str, int], Values]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over blocks and seeds, and whether more comes out than of gold.

    Returns:
        By row and attack: ``run``, ``gold``, ``kept``, ``as_asked``, each a mean; ``more_than_gold``, mean over blocks
        of run less gold, each less what guessing gives; ``p``, exact sign flips over blocks; ``holm``, the same with
        Holm's correction over the attacks of a row that have something said, and apart from these over those that look
        inside; ``p_equivalent``, of that difference being within :data:`MARGINS` either way.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for row in dict.fromkeys(row for _, row, _ in found):
        summary[row] = {}
        for attack in dict.fromkeys(name for (_, one, _), of in found.items() if one == row for name in of):
            some = [(block, of[attack]) for (block, one, _), of in found.items() if one == row and attack in of]
            known = {number for _, of in some for number in of}
            numbers = {n: mean(block_means((block, of.get(n)) for block, of in some)) for n in known}
            differences = block_means((block, of["more_than_gold"]) for block, of in some)
            numbers |= {"more_than_gold": mean(differences), "p": sign_flip(differences), "blocks": len(differences)}
            numbers["p_equivalent"] = equivalence(differences, MARGINS[numbers["says"]])
            summary[row][attack] = dict(sorted(numbers.items()))
        for says in (0.0, 1.0):
            family = {name: of["p"] for name, of in summary[row].items() if of["says"] == says}
            for name, value in holm(family).items():
                summary[row][name]["holm"] = value
    return summary


def block_means(values: Iterable[tuple[str, float | None]]) -> list[float]:
    """Means over the runs of each block that have a number: blocks count alike, however many seeds they have."""
    of_block: dict[str, list[float]] = {}
    for block, value in values:
        if value is not None:
            of_block.setdefault(block, []).append(value)
    return [mean(of) for of in of_block.values()]


def relearning(records: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What forgotten people leak after relearning on all of them: how fast they are learned.

    Returns:
        One for each run, number of steps, and beginning (``adapter``: from the adapter as it was, not from merged
        weights with a new one): ``run`` and ``gold``, share of questions, gold's ``None`` where it has no adapter;
        ``R``, see :func:`~viker_lightning.attacks.conditions.relearned`, ``None`` before any step or without gold.
    """
    found = []
    for (block, row, seed), record in records.items():
        for one in record["attacks"].get(Relearn.name, {}).get("conditions", []):
            if one["series"] in (EVERYBODY, ADAPTER) and "run" in one:
                of = {"block": block, "row": row, "seed": seed, "steps": one["x"], "adapter": one["series"] == ADAPTER}
                golds = [share["forget"] for who, share in one.items() if is_gold(who) and "forget" in share]
                shares = {"run": one["run"].get("forget"), "gold": mean(golds) if golds else None}
                found.append(of | shares | {"R": one.get("R")})
    return found


def markdown(table: Mapping[str, Any], escape: Callable[[str], str] = escaped) -> str:
    """Two tables: a row a method, a column an attack, what leaked and what of gold; and relearning on everybody."""
    attacks = list(dict.fromkeys(name for of in table["rows"].values() for name in of))
    rows = []
    for row, of in table["rows"].items():
        back = [one for one in table["back"] if one["row"] == row]
        golds = [of for one in back for name, of in one.items() if is_gold(name)]
        people = f"{_counted([one.get('run') for one in back])}, {_counted(golds)}"
        rows.append([row, _as_asked(of), *(_cell(of.get(name)) for name in attacks), people])
    commits = table["commits"]
    parts: list[Section | str] = [
        f"Attacks on the runs of `{table['grid']}`, scale `{table['scale']}`, code `{table['code']}`.",
        "A cell: share of questions about forgotten people whose answer gave a private span away, under the\n"
        "condition that leaks most, that of gold (the same, its own worst; of several golds the mean), and\n"
        "in brackets what people who are kept gave under it; of relearning, of people who were not taught.\n"
        "Behind `~`: what guessing gives. `*`: more or less than gold, exact sign flips over blocks, Holm over\n"
        "the attacks of a row (looks inside apart), p at most .05. `=`: equivalent to gold, within .05 for what\n"
        "is said and .10 for looks inside, two one-sided exact tests over blocks, p at most .05 each. Neither:\n"
        "not shown. People recovered, of gold: of whom an attack that has the model say it leaks at least half.",
        _too_few(table["rows"]),
        Section("Leaked", ["method", "as asked", *attacks, "people recovered"], rows),
        *_taught(table["relearning"]),
        f"Made by `{table['command']}` at {commits['attacks']}, runs at {', '.join(commits['runs'])}.",
    ]
    return section.markdown(parts, escape)


def _taught(found: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The table of relearning on everybody, if it was run: shares at every step, the last beside gold."""
    merged = [one for one in found if not one["adapter"]]
    if not merged:
        return []
    steps = sorted({one["steps"] for one in merged})
    note = (
        "Relearning on all forgotten people, from merged weights with a new LoRA, as gold is. A cell:\n"
        "share of questions about them whose answer gave a private span away; `=`: equivalent to gold within\n"
        ".05, two one-sided exact tests over blocks, p at most .05 each. Less gold: after the last step,\n"
        "with p of exact sign flips over blocks, of this one number. R: gold's gain over the model's by then,\n"
        "at most 1; it says nothing of a model that has not forgotten. Adapter kept: the run's own adapter is\n"
        "trained on instead."
    )
    rows = [["Gold", *(_mean(merged, "gold", n) for n in steps), "-", "-", "-"]]
    for row in dict.fromkeys(one["row"] for one in merged):
        mine = [one for one in merged if one["row"] == row]
        left = [one for one in found if one["row"] == row and one["adapter"]]
        more_at = {n: block_means((o["block"], _more(o)) for o in mine if o["steps"] == n) for n in steps}
        more = more_at[steps[-1]]
        beside = f"{mean(more):+.2f}, p {sign_flip(more):.3f}" if more else "-"
        shares = [_mean(mine, "run", n) + "=" * _equivalent(more_at[n]) for n in steps]
        rows.append([row, *shares, beside, _mean(mine, "R", steps[-1]), _mean(left, "run", steps[-1])])
    columns = ["method", *(f"{n} steps" for n in steps), "less gold (p)", "R", "adapter kept"]
    return [Section("Relearning", columns, rows, note)]


def _more(one: Mapping[str, Any]) -> float | None:
    """How much more of the run came out than of gold, after the same relearning."""
    return None if None in (one["run"], one["gold"]) else one["run"] - one["gold"]


def _equivalent(differences: Sequence[float]) -> bool:
    """Whether what is said is as of gold."""
    return bool(differences) and equivalence(differences, MARGINS[1.0]) <= ALPHA


def _mean(found: Sequence[Mapping[str, Any]], number: str, steps: float) -> str:
    """Mean over blocks of a number after so many steps, for a cell."""
    over = block_means((one["block"], one[number]) for one in found if one["steps"] == steps)
    return f"{mean(over):.2f}" if over else "-"


def _too_few(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Says where no star is possible, and where a cell is of fewer blocks than others."""
    blocks = [int(one["blocks"]) for of in rows.values() for one in of.values()]
    families = [sum(one["says"] == says for one in of.values()) for of in rows.values() for says in (0.0, 1.0)]
    said = []
    if blocks and fewest(min(tests for tests in families if tests)) > max(blocks):
        said.append(
            f"Blocks: {max(blocks)}. With so few no star is possible: this says what was seen, and tests nothing."
        )
    few = [f"{row}, {name} ({of['blocks']:g})" for row, some in rows.items() for name, of in some.items()]
    few = [one for one, number in zip(few, blocks, strict=True) if number < max(blocks)]
    if few:
        said.append(f"Of fewer blocks than the {max(blocks)} of the others: {'; '.join(few)}.")
    return "\n".join(said)


def _as_asked(of: Mapping[str, Mapping[str, float]]) -> str:
    """What leaked without an attack, and of gold, as an attack has it that asks everything."""
    both = ("as_asked", "gold_as_asked")
    found = next((one for one in of.values() if one["says"] and all(name in one for name in both)), None)
    return ", ".join(f"{found[name]:.2f}" for name in both) if found else "-"


def _cell(of: Mapping[str, float] | None) -> str:
    if of is None:
        return "-"
    kept = f" ({of['kept']:.2f})" if "kept" in of else ""
    run, gold = (f"{of[who]:.2f}" + (f" ~{of[f'{who}_chance']:.2f}" if f"{who}_chance" in of else "") for who in WHO)
    sign = "*" * (of["holm"] <= ALPHA) + "=" * (of["p_equivalent"] <= ALPHA)
    return f"{run}{sign}, {gold}{kept}"


def _counted(back: Sequence[Mapping[str, int] | None]) -> str:
    some = [one for one in back if one]
    return f"{sum(one['people'] for one in some)} of {sum(one['of'] for one in some)}" if some else "-"


if __name__ == "__main__":
    main()
