"""Reads run folders, and nothing else: tables, answers, key tokens, model cards, report.html."""

from .answers import FEW, QUESTIONS
from .card import write_cards
from .html import write_comparison, write_report
from .intervals import Estimate, Sums, difference, interval
from .runs import Run, read_run
from .terminal import (
    answers_table,
    before_after_table,
    headline,
    key_token_table,
    knowledge_table,
    method_table,
    side_by_side,
)

__all__ = [
    "FEW",
    "QUESTIONS",
    "Estimate",
    "Run",
    "Sums",
    "answers_table",
    "before_after_table",
    "difference",
    "headline",
    "interval",
    "key_token_table",
    "knowledge_table",
    "method_table",
    "read_run",
    "side_by_side",
    "write_cards",
    "write_comparison",
    "write_report",
]
