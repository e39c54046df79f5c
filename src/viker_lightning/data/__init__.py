"""The vocabulary and its batches: records, encoding, packing, sampling. Nothing about any dataset, no model."""

from __future__ import annotations

from importlib import import_module
from typing import Any

MOVED = {"Benchmark", "CLEAR", "FIUBench", "Jsonl", "MLLMU", "Questions", "UMUBench"}
MOVED |= {"base", "clear", "fiubench", "jsonl", "mllmu", "questions", "umu"}
"""Classes and files that stood here up to version 0.1: the config of an older run names its data so."""


def __getattr__(name: str) -> Any:
    """A dataset under its old name."""
    if name in MOVED:
        return getattr(import_module("viker_lightning.datasets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
