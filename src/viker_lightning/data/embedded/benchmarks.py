"""The embedded benchmarks as a datamodule needs them."""

from __future__ import annotations

from . import grammar, write_clear, write_mllmu
from .benchmark_folder import EmbeddedBenchmark

PEOPLE = EmbeddedBenchmark(
    write_mllmu.VERSION, write_mllmu.README, write_mllmu.SIZES, write_mllmu.build, grammar.people_grammar
)
"""Fictitious people in the schema of MLLMU-Bench."""

AUTHORS = EmbeddedBenchmark(
    write_clear.VERSION, write_clear.README, write_clear.SIZES, write_clear.build, grammar.authors_grammar
)
"""Fictitious authors in the schema of CLEAR."""
