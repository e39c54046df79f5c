"""Records, benchmarks, irrelevant images, packing; no model in here.

A :class:`Benchmark` serves people and questions: :class:`MLLMU` from the published schema. ``mini`` writes the embedded
one, ``records`` is the vocabulary of all.
"""

from .base import Benchmark
from .clear import CLEAR
from .mllmu import MLLMU

__all__ = ["CLEAR", "MLLMU", "Benchmark"]
