"""``python -m viker_lightning.grids.compare GRID``: the same attacks on every run of a grid, as a table."""

from __future__ import annotations

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
from viker_lightning.reporting.attacked import more_than_gold, worst
from viker_lightning.reporting.section import Section, escaped
from viker_lightning.storage.files import write_json, write_text
from viker_lightning.storage.runs import names, read_run
from viker_lightning.storage.runs.provenance import git_commit
from viker_lightning.storage.secrets import hide
from viker_lightning.storage.sources import code_fingerprint
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
"""Of one run: by attack ``run`` and ``gold``, the condition that brings out most of each, ``more_than_gold``, ``kept``,
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
    made.add_argument("--only", default="", help="as of viker_lightning.attacks, like what follows")
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
    planned: dict[tuple[str, str, int], tuple[argparse.Namespace, list[Unit], list[Unit], Any]] = {}
    for cell in cells:
        said = parser().parse_args(_arguments(cell, given))
        planned[cell.block, cell.row, cell.seed] = (said, *plan(said))
    wanted = {str(unit.folder): unit for _, _, now, _ in planned.values() for unit in now}  # gold is attacked once
    failed = run_jobs([*wanted.values()], given.jobs, what="attacks")
    records = {key: _of_now(write_results(*of)[0], of[2]) for key, of in planned.items()}
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
        "taught_again": taught_again(records),
    }
    name = f"attacks-{grid.name}-{grid.scale}"
    write_json(given.results / f"{name}.json", table)
    write_text(given.results / f"{name}.md", markdown(table))
    Plain().print(markdown(table, escape=str), soft_wrap=True, highlight=False)
    print(given.results / f"{name}.md")
    if failed:
        return f"{len(failed)} of {len(wanted)} attacks failed: {', '.join(unit.title for unit in failed)}"
    return ""


def _finished_cells(grid: Grid, given: argparse.Namespace) -> list[Cell]:
    """The runs that the command names.

    Raises:
        UserError: if there are none, or one is not finished.
    """
    rows = rows_to_run(given.grid, grid, given.rows) if given.rows else {*grid.rows}
    cells = [
        cell
        for cell in grid.cells(given.runs)
        if cell.gold and cell.row in rows and (not given.blocks or cell.block in given.blocks)
    ]
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


def _arguments(cell: Cell, given: argparse.Namespace) -> list[str]:
    assert cell.gold is not None
    said = [str(cell.folder), f"--gold={cell.gold.folder}", "--on=run,gold"]
    said += [f"--only={given.only}"] * bool(given.only) + ["--quick"] * given.quick
    return [*said, *([f"--settings={given.settings}"] if given.settings else [])]


def of_run(record: Mapping[str, Any]) -> Values:
    """What a table shows of a record: of each attack that was carried out the condition that brings out most.

    The worst condition of gold is its own: the most of several chances is more than any one of them, for gold too.
    """
    found: Values = {}
    for name, attack in record["attacks"].items():
        rows = attack.get("conditions", [])
        run, gold = worst(rows), worst(rows, "gold")
        if run is None or gold is None:
            continue
        found[name] = {"run": run["run"]["forget"], "gold": gold["gold"]["forget"]}
        found[name]["more_than_gold"] = more_than_gold(run["run"], gold["gold"])
        found[name]["says"] = float(attack["says"])
        chance = {who: row[who]["chance"] for who, row in (("run", run), ("gold", gold)) if "chance" in row[who]}
        found[name] |= {f"{who}_chance": value for who, value in chance.items()}
        if "retain" in run["run"]:
            found[name]["kept"] = run["run"]["retain"]
        clean = next((row for row in rows if row["clean"] and "forget" in row.get("run", {})), None)
        if clean:
            found[name]["as_asked"] = clean["run"]["forget"]
            found[name] |= {"gold_as_asked": clean["gold"]["forget"]} if "forget" in clean.get("gold", {}) else {}
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


def taught_again(records: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What came out of the forgotten people once all of them were taught again: how fast they are learned.

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
                shares = {who: one.get(who, {}).get("forget") for who in WHO}
                found.append(of | shares | {"R": one.get("R")})
    return found


def markdown(table: Mapping[str, Any], escape: Callable[[str], str] = escaped) -> str:
    """Two tables: a row a method, a column an attack, and what came out and of gold; and everybody taught again."""
    attacks = list(dict.fromkeys(name for of in table["rows"].values() for name in of))
    rows = []
    for row, of in table["rows"].items():
        back = [one for one in table["back"] if one["row"] == row]
        people = ", ".join(_counted([one.get(name) for one in back]) for name in WHO)
        rows.append([row, _as_asked(of), *(_cell(of.get(name)) for name in attacks), people])
    commits = table["commits"]
    parts: list[Section | str] = [
        f"Attacks on the runs of `{table['grid']}`, scale `{table['scale']}`, code `{table['code']}`.",
        "A cell: share of questions about forgotten people whose answer gave a private span away, under the\n"
        "condition that brings out most, that of gold (the same, its own worst), and in brackets what people\n"
        "who are kept gave under it; of relearning, of people who were not taught. Behind `~`: what guessing\n"
        "gives. `*`: more or less than gold, exact sign flips over blocks, Holm over the attacks of a row\n"
        "(looks inside apart), p at most .05. `=`: equivalent to gold, within .05 for what is said and .10 for\n"
        "looks inside, two one-sided exact tests over blocks, p at most .05 each. Neither: not shown. People\n"
        "back, of gold: of whom an attack that has the model say it brings out at least half.",
        _too_few(table["rows"]),
        Section("What came out", ["method", "as asked", *attacks, "people back"], rows),
        *_taught(table["taught_again"]),
        f"Made by `{table['command']}` at {commits['attacks']}, runs at {', '.join(commits['runs'])}.",
    ]
    return section.markdown(parts, escape)


def _taught(found: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The table of everybody taught again, if any was: shares at every step, the last beside gold."""
    merged = [one for one in found if not one["adapter"]]
    if not merged:
        return []
    steps = sorted({one["steps"] for one in merged})
    note = (
        "All forgotten people are trained on again, from merged weights with a new LoRA, as gold is. A cell:\n"
        "share of questions about them whose answer gave a private span away. Less gold: after the last step,\n"
        "with p of exact sign flips over blocks, of this one number. R: gold's gain over the model's by then,\n"
        "at most 1; it says nothing of a model that has not forgotten. Left on: the run's own adapter is\n"
        "trained on instead."
    )
    rows = [["Gold", *(_mean(merged, "gold", n) for n in steps), "-", "-", "-"]]
    for row in dict.fromkeys(one["row"] for one in merged):
        mine = [one for one in merged if one["row"] == row]
        left = [one for one in found if one["row"] == row and one["adapter"]]
        both = [o for o in mine if o["steps"] == steps[-1] and o["gold"] is not None]
        more = block_means((o["block"], o["run"] - o["gold"]) for o in both)
        beside = f"{mean(more):+.2f}, p {sign_flip(more):.3f}" if more else "-"
        shares = [_mean(mine, "run", n) for n in steps]
        rows.append([row, *shares, beside, _mean(mine, "R", steps[-1]), _mean(left, "run", steps[-1])])
    columns = ["method", *(f"{n} steps" for n in steps), "less gold (p)", "R", "adapter left on"]
    return [Section("Taught again", columns, rows, note)]


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
    """What came out without an attack, and of gold, as an attack has it that asks everything."""
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
