"""Visual-guided key-token regularisation and its rivals: make a multimodal LLM forget people, and show it."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

ROOMS = {
    "callbacks": ("Evaluation", "KnowledgeGate", "trainer"),
    "data.records": ("Picture",),
    "datasets": ("CLEAR", "MLLMU", "FIUBench", "Jsonl", "Questions", "UMUBench"),
    "methods": ("Stranger", "ViKeR"),
    "models": ("MLLM", "Lora", "ask"),
    "training": ("Finetune", "Unlearn"),
}
"""What a script needs most, by the room it is in. It is loaded when it is asked for: torch takes seconds."""


def __getattr__(name: str) -> Any:
    for room, names in ROOMS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name for names in ROOMS.values() for name in names)])
