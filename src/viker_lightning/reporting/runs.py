"""A finished run, as its folder tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from viker_lightning.errors import UserError

Summary = dict[str, dict[str, float]]


@dataclass
class Run:
    """What ``results.json`` and ``predictions.parquet`` of a run hold.

    Attributes:
        folder: the run folder.
        results: the content of ``results.json``.
    """

    folder: Path
    results: dict[str, Any]

    @property
    def before(self) -> Summary:
        """Numbers before training, by split."""
        return self.results["before"]

    @property
    def after(self) -> Summary:
        """Numbers after training, by split."""
        return self.results["after"]

    def answers(self, split: str, person: str) -> list[tuple[str, str, str, str]]:
        """Open questions about a person: question, reference, answer before, answer after."""
        table = pq.read_table(self.folder / "predictions.parquet")
        asked = pc.field("split") == split
        rows = table.filter(asked & (pc.field("person") == person) & (pc.field("task") == "generation")).to_pylist()
        by_number: dict[tuple[int, str], dict[str, Any]] = {}
        for row in rows:
            by_number.setdefault((row["number"], row["question"]), {})[row["when"]] = row
        return [
            (r["after"]["question"], r["after"]["reference"], r["before"]["answer"], r["after"]["answer"])
            for _, r in sorted(by_number.items())
        ]

    def people(self, split: str) -> list[str]:
        """IDs of the people of a split."""
        table = pq.read_table(self.folder / "predictions.parquet", columns=["split", "person"])
        return sorted(set(table.filter(pc.field("split") == split)["person"].to_pylist()))


def read_run(folder: Path) -> Run:
    """Reads a finished run.

    Raises:
        UserError: if the run is not finished.
    """
    results = folder / "results.json"
    if not results.is_file():
        raise UserError(f"{folder}: no results.json, so this run is not finished; start it again")
    return Run(folder, json.loads(results.read_text(encoding="utf-8")))
