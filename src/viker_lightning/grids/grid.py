"""A grid: which runs a table is made of."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from viker_lightning.reporting.contenders import Kind

from .cells import Cell, config_values

Options = dict[str, Any]
GOLD = "{gold}"
"""An option of this value is given the folder of the block's gold model."""

MEASURED = ("scores", "coherence", "judge", "gibberish", "gibberish_tokens", "max_new_tokens")
"""Options of ``evaluation`` that say how answers are measured, of gold as of the methods."""


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
        published: section of ``experiments/paper_numbers.yaml`` with numbers to show beside, if any.
        tuning: record of all settings tried, if any.
        worlds: whether each block is a world: other people with a vanilla and a gold model of their own, so that
            methods are compared over blocks, not over the people of one.
        sequence: whether each block is a request that goes on from the model of the block before it, row by row and
            seed by seed; its forget set is everybody forgotten so far.
        figure: what its figure shows in place of the trade-off: ``label``, ``x`` (a value by row), ``y``
            (``<split>/<score>`` each) and perhaps ``log``.
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
    worlds: bool = False
    sequence: bool = False
    figure: dict[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=dict)

    def cells(self, out: Path) -> list[Cell]:
        """Every run of the grid, gold models first."""
        gold_first = sorted(self.rows.values(), key=lambda row: row.name != self.gold)
        with_runs = [row for row in gold_first if not row.before]
        return [
            self.cell(out, block, row.name, seed)
            for row in with_runs
            for block, seed in product(self.blocks, self._seeds(row))
        ]

    def needed(self, rows: Iterable[str]) -> set[str]:
        """These rows, and those that a comparison of them needs: vanilla, gold, gold once more, the reference."""
        beside = {name for name, row in self.rows.items() if row.again} | {row.before for row in self.rows.values()}
        return {*rows, *beside, self.gold, self.reference} - {""}

    def cell(self, out: Path, block: str, name: str, seed: int) -> Cell:
        """One run of the grid. Runs that are the same in several grids or blocks have the same folder."""
        row = self.rows[name]
        tuned = name == self.gold or bool(row.again)
        gold = self.cell(out, block, self.gold, 0) if self.gold and name != self.gold else None
        previous = None if tuned else self._previous(out, block, name, seed)
        options = self._options(block, row, seed, tuned)
        if gold:
            options = {key: str(gold.folder) if value == GOLD else value for key, value in options.items()}
            options["evaluation.gold"] = str(gold.folder)
        if previous:
            options |= dict.fromkeys(("model.vanilla", "data.forgotten_by"), str(previous.folder))
        if not tuned:  # the vanilla model is the same for all rows: once is enough
            options["evaluation.before"] = seed == 0 and any(other.before == name for other in self.rows.values())
        options = {
            key: value for key, value in options.items() if value is None or config_option(row.config, key) != value
        }
        folders = {str(cell.folder): cell.folder.name for cell in (gold, previous) if cell}
        named = {key: folders.get(str(value), value) for key, value in options.items()}  # wherever the runs are
        digest = hashlib.sha256(json.dumps([row.config, named], sort_keys=True).encode()).hexdigest()[:8]
        folder = out / "-".join([*Path(row.config).with_suffix("").parts[-2:], str(seed), digest])
        group = f"{self.name}-{self.scale}"
        if block and set(self.blocks[block]) != {"data.forget"}:  # W&B is to average over neither
            group += f", {block}"
        return Cell(group, block, name, seed, row.config, options, folder, gold, previous)

    def _options(self, block: str, row: Row, seed: int, tuned: bool) -> Options:
        """What a run's command says beside its config, other runs aside."""
        options = {**self.options, **self.blocks[block], **row.options, "seed_everything": seed}
        if not tuned:
            return options
        # fine-tuned on the same data, measured in the same way; settings of unlearning are none of its business
        shared = {
            key: value
            for key, value in options.items()
            if key.startswith("data.") or key.removeprefix("evaluation.") in MEASURED
        }
        return {**self._judge(), **shared, **row.options, "seed_everything": seed}

    def _previous(self, out: Path, block: str, name: str, seed: int) -> Cell | None:
        """The run of the request before."""
        number = list(self.blocks).index(block)
        return self.cell(out, list(self.blocks)[number - 1], name, seed) if self.sequence and number else None

    def kind(self, name: str) -> Kind:
        """What a row is in a comparison."""
        row = self.rows[name]
        return "vanilla" if row.before else "gold" if name == self.gold else "floor" if row.again else "method"

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
        vanilla = options.get("model.vanilla") or config_option(row.config, "model.vanilla")
        return {"evaluation.judge": vanilla} if vanilla else {}


def config_option(config: str, key: str) -> Any:
    """What a run's YAML says of an option of the command line; ``None`` if nothing."""
    node: Any = config_values(Path(config))
    for part in key.split("."):
        node = node.get("init_args", node) if isinstance(node, dict) else None
        node = node.get(part) if isinstance(node, dict) else None
    return node
