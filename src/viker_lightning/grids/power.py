"""``python -m viker_lightning.grids power RECORD``: how many worlds does it take, by some there are?"""

import argparse
import json
from pathlib import Path
from statistics import stdev

import numpy as np
from scipy.stats import chi2

from viker_lightning.errors import UserError, say, short
from viker_lightning.metrics.statistics.paired import ALPHA, EXACT, fewest, sign_flip
from viker_lightning.terminal.failures import ending_in_one_line

from .tables.worlds import Measure, paired

POWER, DRAWS, LEAST = 0.8, 1000, 3
"""The share of tables that are to show the difference, how many are drawn, and of how many worlds a spread is read."""


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="viker_lightning.grids power", description=str(__doc__).split(": ", 1)[1])
    parser.add_argument("record", type=Path, help="of a grid of worlds, as docs/results/worlds-mini.json")
    parser.add_argument("--difference", type=float, default=0.05, help="true one, in the unit of the column; by .05")
    parser.add_argument("--rivals", type=int, default=None, help="Holm's correction is over; by default the record's")
    parser.add_argument("--column", default="test Keywords", help="as headed in the table; by default test Keywords")
    given = parser.parse_args(arguments)
    with ending_in_one_line():
        if not 0 < given.difference < float("inf"):
            raise UserError(f"--difference: found {given.difference}, expected a number above 0")
        if given.rivals is not None and given.rivals < 1:
            raise UserError(f"--rivals: found {given.rivals}, expected 1 or more")
        say(table_of_power(given.record, given.difference, given.rivals, given.column))


def worlds_for(difference: float, spread: float, rivals: int) -> int | None:
    """How many worlds show a true difference in 80 of 100 tables drawn from a normal distribution.

    Args:
        difference: its mean, > 0.
        spread: its standard deviation.
        rivals: over how many Holm's correction is: the smallest p-value times this must be at most 5 %.

    Returns:
        What the smallest p-value needs, or more; ``None`` above :data:`EXACT`, up to which the test is exact.
    """
    samples = difference + spread * np.random.default_rng(0).standard_normal((DRAWS, EXACT))
    low, high = fewest(rivals), EXACT + 1
    while low < high:
        worlds = (low + high) // 2
        shown = sum(rivals * sign_flip(sample) <= ALPHA for sample in samples[:, :worlds])
        low, high = (low, worlds) if shown >= POWER * DRAWS else (worlds + 1, high)
    return low if low <= EXACT else None


def table_of_power(file: Path, difference: float, rivals: int | None, column: str) -> str:
    """A line for each row that a record compares with its reference: its spread over worlds, the worlds it takes."""
    try:
        record = json.loads(file.read_text("utf-8"))
        measured, against = record["measured"], record["reference"]
        measures = [Measure(**one) for one in record["measures"]]
        others = [name for name in record["methods"] if name != against]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"({type(error).__name__}: {error}), expected the .json of a grid with `worlds: true`; give another"
        raise UserError(f"{file}: found no record of worlds {why}") from error
    one = next((m for m in measures if column in (m.heading, m.column)), None)
    if one is None:
        raise UserError(f"--column: found {short(column)}, expected one of {', '.join(m.heading for m in measures)}")
    rows = {name: [*paired(measured, one, name, against).values()] for name in others}
    worlds = max(map(len, rows.values()), default=0)
    if worlds < LEAST:
        why = f"{worlds} worlds with {one.heading} of {against or 'a reference'} and another row"
        raise UserError(f"{file}: found {why}, expected {LEAST} or more; make more worlds")
    rivals, wide = rivals or sum(map(bool, rows.values())), max(map(len, rows))
    lines = [f"{'row':{wide}}   worlds   spread  for {difference:g}"]
    for name, pairs in rows.items():
        lines.append(f"{name:{wide}}{len(pairs):9}")
        if len(pairs) >= LEAST:
            needed = worlds_for(difference, stdev(pairs), rivals) or f"> {EXACT}"
            lines[-1] += f"{stdev(pairs):9.3f}{needed:>9}"
    low, high = (np.sqrt((worlds - 1) / chi2.ppf(share, worlds - 1)) for share in (0.975, 0.025))
    lines += [
        "",
        f"{one.heading}: worlds that show a true difference of {difference:g} from {against} in {100 * POWER:g} % of "
        f"tables, by the exact sign-flip test at {100 * ALPHA:g} % and the first step of Holm's correction, {rivals} "
        f"rival{'s' * (rivals > 1)}: at least {fewest(rivals)}. Simulated: {DRAWS} normal samples with the spread of "
        f"the paired differences; of {worlds} worlds the true one is {low:.2f} to {high:.2f} times it (95 %).",
    ]
    return "\n".join(lines)
