"""What the finished runs of a benchmark say, and how its page is written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from viker_lightning.grids import Cell

HERE = Path(__file__).parent


def options(about: str, runs: str) -> argparse.Namespace:
    """The command line of a benchmark that makes runs.

    Args:
        about: the script's docstring.
        runs: where runs go by default.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path(runs))
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def scores(cell: Cell, columns: Iterable[str]) -> dict[str, Any]:
    """Scores of a finished run, by ``<split>/<score>``; ``None`` where it was not measured."""
    after = json.loads((cell.folder / "results.json").read_text("utf-8"))["after"]
    return {key: after.get(split, {}).get(score) for key in columns for split, score in [key.split("/")]}


def commits(cells: Iterable[Cell]) -> list[str]:
    """The commits at which runs were made."""
    made = [json.loads((cell.folder / "provenance.json").read_text("utf-8")) for cell in cells]
    return sorted({str(one["git_commit"]) for one in made})


def write(name: str, record: dict[str, Any], markdown: Callable[[dict[str, Any]], str]) -> None:
    """Writes ``<name>.json`` and ``<name>.md`` beside this file, and shows the page."""
    (HERE / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (HERE / f"{name}.md").write_text(markdown(record), "utf-8")
    print(markdown(record))
