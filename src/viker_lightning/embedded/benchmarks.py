"""The embedded benchmarks as a datamodule needs them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import grammar, write_clear, write_mllmu


@dataclass(frozen=True)
class EmbeddedBenchmark:
    """A benchmark that is drawn from a seed and written on first use.

    Attributes:
        sizes: names of the sizes there are.
        version: part of its folder's name; another one for other contents.
        write: writes a size into a folder, once.
        grammar: makes a pattern that every sentence in it matches as a whole.
    """

    sizes: tuple[str, ...]
    version: str
    write: Callable[[Path, str], Path]
    grammar: Callable[[], re.Pattern[str]]


PEOPLE = EmbeddedBenchmark(
    tuple(write_mllmu.SIZES), write_mllmu.VERSION, write_mllmu.write_benchmark, grammar.people_grammar
)
"""Fictitious people in the schema of MLLMU-Bench."""

AUTHORS = EmbeddedBenchmark(
    tuple(write_clear.SIZES), write_clear.VERSION, write_clear.write_benchmark, grammar.authors_grammar
)
"""Fictitious authors in the schema of CLEAR."""
