"""A table of many runs: its numbers, and what shows them: JSON, Markdown, a page, figures, the terminal."""

from .figures import draw_figures
from .render import example_answers, key_token_note, legend, summary, write_table
from .table import Table
