"""``python -m viker_lightning.reporting RUN_FOLDER [RUN_FOLDER ...]``: writes reports of finished runs."""

import argparse
import errno
from collections.abc import Sequence
from pathlib import Path

from viker_lightning.errors import UserError
from viker_lightning.terminal.failures import ending_in_one_line

from .html import write_comparison, write_report


def main(args: Sequence[str] | None = None) -> None:
    """Writes ``report.html`` for one run, or a comparison of several; errors end in one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m viker_lightning.reporting",
        description="Writes report.html into the folder of a finished run, or a page that compares several runs.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="several are compared")
    parser.add_argument("--out", type=Path, help="page of a comparison (default: comparison.html beside the first run)")
    parser.add_argument("--reference", default="", metavar="METHOD", help="several: what the others are compared with")
    parser.add_argument("--people", nargs="+", metavar="ID", help="one run: whose answers are shown")
    parser.add_argument("--no-photos", action="store_true", help="one run: show no pictures of people")
    given = parser.parse_args(args)
    with ending_in_one_line():
        print(f"{write(given)} written")


def write(given: argparse.Namespace) -> Path:
    """Writes what the command line asks for."""
    several = len(given.runs) > 1
    if several and (given.people or given.no_photos):
        raise UserError("--people and --no-photos are for the report of one run; a comparison shows nobody")
    if not several and given.out:
        raise UserError(f"--out: a single run's report is {given.runs[0]}/report.html; give several runs, or no --out")
    if not several and given.reference:
        raise UserError("--reference: there is nothing to compare with; give several runs")
    try:
        if not several:
            return write_report(given.runs[0], given.people, not given.no_photos)
        file = given.out or given.runs[0].resolve().parent / "comparison.html"
        return write_comparison(given.runs, file, given.reference)
    except OSError as error:
        remedy = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "let it be read and written"
        raise UserError(f"{error}; {remedy}" + ", or give another file as --out" * several) from error


if __name__ == "__main__":
    main()
