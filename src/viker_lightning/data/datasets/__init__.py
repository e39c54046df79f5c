"""LightningDataModules: published benchmarks, one's own people, one's own questions.

A :class:`Benchmark` serves people and questions: :class:`MLLMU`, :class:`CLEAR`, :class:`UMUBench` and
:class:`FIUBench` from the published schemas, :class:`Jsonl` from a user's own file; :class:`Questions` serves
predict alone.
"""

from .base import Benchmark
from .clear import CLEAR
from .fiubench import FIUBench
from .jsonl import Jsonl
from .mllmu import MLLMU
from .questions import Questions
from .umu import UMUBench

__all__ = ["CLEAR", "MLLMU", "Benchmark", "FIUBench", "Jsonl", "Questions", "UMUBench"]
