"""Reads run folders, and nothing else: tables, answers before and after, key tokens, model cards."""

from .card import write_cards
from .runs import Run, read_run
from .terminal import answers_table, key_token_table, knowledge_table, method_table, side_by_side

__all__ = [
    "Run",
    "answers_table",
    "key_token_table",
    "knowledge_table",
    "method_table",
    "read_run",
    "side_by_side",
    "write_cards",
]
