"""A table of many runs: its numbers, and what shows them: JSON, Markdown, a page, figures, the terminal."""

from viker_lightning.grids.tuning.page import write_tuning
from viker_lightning.grids.tuning.tuned import read_tuning

from .figures import draw_figures
from .paper_numbers import paper_numbers
from .render import example_answers, key_token_note, legend, summary, write_table
from .table import Table

__all__ = [
    "Table",
    "draw_figures",
    "example_answers",
    "key_token_note",
    "legend",
    "paper_numbers",
    "read_tuning",
    "summary",
    "write_table",
    "write_tuning",
]
