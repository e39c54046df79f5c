"""A table of many runs: its numbers, and what shows them: JSON, Markdown, a page, figures, the terminal."""

from .figures import draw_figures
from .paper_numbers import paper_numbers
from .render import example_answers, key_token_note, legend, summary, write_table
from .table import Table, TableRow, TableRun
from .tuned import read_tuning
from .tuning_page import write_tuning

__all__ = [
    "Table",
    "TableRow",
    "TableRun",
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
