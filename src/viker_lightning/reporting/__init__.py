"""Reads run folders, and nothing else: tables, answers, key tokens, model cards, report.html."""

from viker_lightning.metrics.statistics.intervals import Estimate, Sums, difference, interval

from .answers import FEW, QUESTIONS, token_views
from .card import write_cards
from .html import token_page, write_attacks_page, write_comparison, write_report
from .probes import probe_rows
from .run_scores import arrow, numbers_of
from .terminal import before_after_table, headline, knowledge_table, side_by_side
