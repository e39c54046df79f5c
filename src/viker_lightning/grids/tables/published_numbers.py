"""Numbers others published, with where they were read."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from viker_lightning.errors import UserError

PAPER_NUMBERS = Path("experiments/paper_numbers.yaml")


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


def paper_numbers(section: str, file: Path) -> list[Source]:
    """The sources of a section of a YAML, as ``experiments/paper_numbers.yaml``."""
    if not file.is_file():
        raise UserError(f"{file}: does not exist; run from the repository, or leave 'published' out of the grid")
    sections = yaml.safe_load(file.read_text(encoding="utf-8"))
    if section not in sections:
        raise UserError(f"{file}: no section {section!r}; found {', '.join(sections)}")
    sources = [Source(**values) for values in sections[section]]
    for source in sources:
        for block, rows in source.blocks.items():
            for row, values in rows.items():
                if len(values) != len(source.columns):
                    count = f"found {len(values)} numbers, expected {len(source.columns)}"
                    raise UserError(f"{file}, {section}, {block}, {row}: {count}")
    return sources
