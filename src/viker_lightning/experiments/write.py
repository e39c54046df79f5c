"""Writing a table down: JSON, Markdown, LaTeX and a page."""

from __future__ import annotations

import json
from pathlib import Path

from .facts import costs, key_tokens
from .grid import Grid
from .page import write_table_page
from .render import latex, markdown
from .table import Table


def tabulate(grid: Grid, out: Path, results: Path) -> Table:
    """Writes ``<results>/<table>-<scale>.json``, ``.md``, ``.tex`` and ``.html`` of what is finished.

    Args:
        grid: the grid.
        out: folder of its runs.
        results: folder of tables.
    """
    table = Table(grid, out)
    results.mkdir(parents=True, exist_ok=True)
    name = f"{grid.name}-{grid.scale}"
    record = table.record() | {"key_tokens": key_tokens(table), "costs": costs(table)}
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (results / f"{name}.md").write_text(markdown(table), encoding="utf-8")
    (results / f"{name}.tex").write_text(latex(table), encoding="utf-8")
    write_table_page(table, results / f"{name}.html")
    return table
