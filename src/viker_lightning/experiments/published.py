"""Numbers others published, with where they were read. ``experiments/published.yaml`` holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from viker_lightning.errors import UserError

FILE = Path("experiments/published.yaml")


@dataclass(frozen=True)
class Source:
    """A published table, or the part of it that can be compared.

    Attributes:
        source: where the numbers were read.
        setting: model, data and metric as far as they are known.
        protocol: ``published`` or ``corrected``, as ``data.protocol`` has them.
        second_hand: whether they were read elsewhere than in the paper that made them.
        columns: ``<split>/<score>`` of each column.
        blocks: by block of our table and row, a value a column, 0 to 1; ``None`` where there is none.
    """

    source: str
    setting: str
    protocol: str
    second_hand: bool
    columns: list[str]
    blocks: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)

    def value(self, block: str, row: str, column: str) -> float | None:
        """A number, if it was published."""
        values = self.blocks.get(block, {}).get(row)
        return values[self.columns.index(column)] if values and column in self.columns else None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def published(section: str, file: Path = FILE) -> list[Source]:
    """Published numbers of a section.

    Raises:
        UserError: if file or section is missing, or a row has more or fewer numbers than columns.
    """
    if not file.is_file():
        raise UserError(f"{file}: does not exist; run from the repository, or leave 'published' out of the grid")
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    if section not in found:
        raise UserError(f"{file}: no section {section!r}; found {', '.join(found)}")
    sources = [Source(**values) for values in found[section]]
    for source in sources:
        for block, rows in source.blocks.items():
            for row, values in rows.items():
                if len(values) != len(source.columns):
                    count = f"found {len(values)} numbers, expected {len(source.columns)}"
                    raise UserError(f"{file}, {section}, {block}, {row}: {count}")
    return sources
