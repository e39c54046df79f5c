"""A grid: which runs a table is made of. ``experiments/*.yaml`` hold them."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from viker_lightning.errors import UserError
from viker_lightning.options import yaml_values
from viker_lightning.reporting.contenders import OWN

from .cells import Cell
from .checks import check_columns, check_figure, mapping, only

Options = dict[str, Any]
GOLD = "{gold}"
"""An option of this value is given the folder of the block's gold model."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as it is shown.
        config: YAML of the run.
        options: what differs from the YAML, as command-line options without dashes.
        seeds: how many seeds it has at most; a gold model needs one.
        before: the row whose numbers *before* training this row shows (vanilla); it has no runs of its own.
        again: the gold row whose model this row makes once more, with the next seed: how far gold is from itself.
    """

    name: str
    config: str = ""
    options: Options = field(default_factory=dict)
    seeds: int | None = None
    before: str = ""
    again: str = ""


@dataclass(frozen=True)
class Grid:
    """A table at a scale: blocks (forget ratios, say) times rows (methods) times seeds.

    Attributes:
        name: of the file.
        title: of the table.
        scale: ``mini``, ``paper`` or ``published``.
        note: what this scale is, in a sentence.
        columns: metrics by split, each with its heading.
        blocks: options by block.
        rows: rows by name.
        gold: the row that is the gold model of its block, if any; the others are compared with it.
        reference: the method whose differences from the other methods are tested, named before any run.
        seeds: seeds 0..N-1.
        published: section of ``published.yaml`` with numbers to show beside, if any.
        tuning: file of all settings tried, if any.
        figure: what a figure of this table shows (see :mod:`~viker_lightning.experiments.figures`).
    """

    name: str
    title: str
    scale: str
    note: str
    columns: dict[str, dict[str, str]]
    blocks: dict[str, Options]
    rows: dict[str, Row]
    gold: str
    reference: str
    seeds: int
    published: str = ""
    tuning: str = ""
    figure: dict[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=dict)

    def cells(self, out: Path) -> list[Cell]:
        """Every run of the grid, gold models first.

        Args:
            out: folder of the grid's runs.
        """
        found = []
        ordered = sorted(self.rows.values(), key=lambda row: row.name != self.gold)
        for row in ordered:
            for block in self.blocks if not row.before else ():
                found += [self.cell(out, block, row.name, seed) for seed in self._seeds(row)]
        return found

    def cell(self, out: Path, block: str, name: str, seed: int) -> Cell:
        """One run of the grid. Runs that are the same in several grids or blocks have the same folder."""
        row = self.rows[name]
        options = {**self.options, **self.blocks[block], **row.options, "seed_everything": seed}
        gold = None
        tuned = self.gold in (name, row.again)
        if tuned:  # fine-tuned on the same data; settings of unlearning are none of its business
            shared = {key: value for key, value in options.items() if key.startswith("data.")}
            options = {**shared, **self._judge(), **row.options, "seed_everything": seed}
        if self.gold and name != self.gold:
            gold = self.cell(out, block, self.gold, 0)
            options = {key: str(gold.folder) if value == GOLD else value for key, value in options.items()}
            options["evaluation.gold"] = str(gold.folder)
        if not tuned:  # the vanilla model is the same for all rows: once is enough
            options["evaluation.before"] = seed == 0 and any(other.before == name for other in self.rows.values())
        options = {key: value for key, value in options.items() if value is None or setting(row.config, key) != value}
        folders = {str(gold.folder): gold.folder.name} if gold else {}
        named = {key: folders.get(str(value), value) for key, value in options.items()}  # wherever the runs are
        digest = hashlib.sha256(json.dumps([row.config, named], sort_keys=True).encode()).hexdigest()[:8]
        folder = out / "-".join([*Path(row.config).with_suffix("").parts[-2:], str(seed), digest])
        table = f"{self.name}-{self.scale}"
        if block and set(self.blocks[block]) != {"data.forget"}:  # W&B is to average over neither
            table += f", {block}"
        return Cell(table, block, name, seed, row.config, options, folder, gold)

    def runs(self, out: Path, block: str, name: str) -> tuple[str, list[Cell]]:
        """What the numbers of a row are read from: ``before`` or ``after``, and of which runs."""
        row = self.rows[name]
        if row.before:
            return "before", [self.cell(out, block, row.before, 0)]
        return "after", [self.cell(out, block, name, seed) for seed in self._seeds(row)]

    def _seeds(self, row: Row) -> range:
        if row.again:  # one that no gold model of the grid has
            first = self._seeds(self.rows[row.again]).stop
            return range(first, first + (row.seeds or 1))
        return range(self.seeds if row.seeds is None else min(self.seeds, row.seeds))

    def _judge(self) -> Options:
        """Gold is judged by the vanilla model, as the methods are; its own run has none, or another one."""
        row = next((self.rows[row.before] for row in self.rows.values() if row.before), None)
        if row is None:
            return {}
        options = {**self.options, **row.options}
        vanilla = options.get("model.vanilla") or setting(row.config, "model.vanilla")
        return {"evaluation.judge": vanilla} if vanilla else {}


def setting(config: str, key: str) -> Any:
    """What a run's YAML says of an option of the command line; ``None`` if nothing."""
    node: Any = _read(config)
    for part in key.split("."):
        node = node.get("init_args", node) if isinstance(node, dict) else None
        node = node.get(part) if isinstance(node, dict) else None
    return node


@functools.cache
def _read(config: str) -> Any:
    return yaml_values(Path(config))


def read_grid(file: Path, scale: str, seeds: int) -> Grid:
    """Reads a grid.

    Raises:
        UserError: naming file and entry of what is wrong.
    """
    if not file.is_file():
        raise UserError(f"{file}: not a readable grid (no such file); give a file of experiments/")
    found = yaml_values(file)
    known = {"title", "columns", "published", "scales", "figure"}
    only(file, "", found, known, {"title", "columns", "scales"})
    mapping(file, "scales", found["scales"])
    if scale not in found["scales"]:
        raise UserError(f"{file}: no scale {scale!r}; found {', '.join(map(str, found['scales']))}")
    if seeds < 1:
        raise UserError(f"seeds: found {seeds}, expected 1 or more")
    at, place = found["scales"][scale], f"scales.{scale}"
    known = {"note", "config", "options", "blocks", "rows", "gold", "reference", "tuning"}
    only(file, place, at, known, {"note", "rows"})
    mapping(file, f"{place}.options", at.get("options", {}))
    blocks = mapping(file, f"{place}.blocks", at.get("blocks", {"": {}}))
    for name, values in blocks.items():
        mapping(file, f"{place}.blocks.{name}", values)
    if at.get("tuning") and not Path(at["tuning"]).is_file():
        raise UserError(f"{file}, {place}.tuning: {at['tuning']!r} does not exist; give a file of tried settings")
    check_columns(file, found["columns"], at.get("options", {}).get("evaluation.scores"))
    mapping(file, f"{place}.rows", at["rows"])
    gold = at.get("gold", "")
    if gold and gold not in at["rows"]:
        raise UserError(f"{file}, {place}.gold: no row {gold!r}; found {', '.join(map(str, at['rows']))}")
    rows: dict[str, Row] = {}
    for name, values in at["rows"].items():
        where = f"{place}.rows.{name}"
        only(file, where, values or {}, {"config", "options", "seeds", "before", "again"}, set())
        mapping(file, f"{where}.options", (values or {}).get("options", {}))
        again = (values or {}).get("again", "")
        if again and (again != gold or again not in rows):
            raise UserError(f"{file}, {where}.again: found {again!r}, expected the gold row, which stands above it")
        same = {"config": rows[again].config, "options": rows[again].options} if again else {}
        row = Row(str(name), **{"config": at.get("config", ""), **same, **(values or {})})
        if row.before and row.before not in at["rows"]:
            raise UserError(f"{file}, {where}.before: no row {row.before!r}; found {', '.join(map(str, at['rows']))}")
        if not row.before and not Path(row.config).is_file():
            raise UserError(f"{file}, {where}.config: {row.config!r} does not exist; give the YAML of a run")
        vanilla = row.options.get("model.vanilla") or ("" if row.before else setting(row.config, "model.vanilla"))
        if str(vanilla).endswith((".yaml", ".yml")) and not Path(str(vanilla)).is_file():
            found_in = f"{file}, {where}" if "model.vanilla" in row.options else row.config
            raise UserError(f"{found_in}: model.vanilla {vanilla!r} does not exist; give the YAML of a run, or weights")
        rows[row.name] = row
    if "figure" in found:
        check_figure(file, found["figure"], rows)
    methods = [name for name, row in rows.items() if name != gold and not row.before and not row.again]
    reference = at.get("reference", OWN if OWN in methods else next(iter(methods), ""))
    if reference and reference not in methods:
        raise UserError(f"{file}, {place}.reference: no method {reference!r}; found {', '.join(methods)}")
    return Grid(
        name=file.stem,
        title=found["title"],
        scale=scale,
        note=at["note"],
        columns=found["columns"],
        blocks={str(name): values for name, values in blocks.items()},
        rows=rows,
        gold=gold,
        reference=reference,
        seeds=seeds,
        published=found.get("published", ""),
        tuning=at.get("tuning", ""),
        figure=found.get("figure", {}),
        options=at.get("options", {}),
    )
