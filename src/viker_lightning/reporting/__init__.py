"""Reads run folders, and nothing else: tables, answers before and after, key tokens."""

from .runs import Run, read_run
from .terminal import answers_table, key_token_table, knowledge_table, method_table

__all__ = ["Run", "answers_table", "key_token_table", "knowledge_table", "method_table", "read_run"]
