"""The vocabulary and its batches: records, encoding, packing, sampling; what they are made of in rooms of their own."""

from importlib import import_module
from typing import Any

DATASETS = {"Benchmark", "CLEAR", "FIUBench", "Jsonl", "MLLMU", "Questions", "UMUBench"}
DATASETS |= {"base", "clear", "fiubench", "jsonl", "mllmu", "questions", "umu"}  # configs of older runs name the file


def __getattr__(name: str) -> Any:
    """A dataset, loaded when it is asked for: it brings Lightning."""
    if name in DATASETS:
        return getattr(import_module(f"{__name__}.datasets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
