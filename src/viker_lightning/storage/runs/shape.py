"""What the files of a run folder must hold, as far as it is read, and the one check that they do."""

from pathlib import Path
from types import NoneType
from typing import Any, get_args

from viker_lightning.errors import UserError, short

NUMBER = int | float
SUMMARY = {"*": {"*": NUMBER | None}}

RESULTS = {
    "before": SUMMARY,
    "after!": SUMMARY,
    "seed": int,
    "sums": {"*": {"*": {"*": {"*": [NUMBER, NUMBER]}}}},
    "key_tokens": {"*": NUMBER | None},
    "knowledge": {"*": NUMBER | None},
}
"""By name; ``*`` is any other, and ``!`` marks one that must be there. A list of one kind may have any length."""

CONFIG = {
    "model!": {
        "init_args": {
            "method": {"class_path!": str, "init_args": dict},
            "engine": {"max_sequence_tokens": int, "max_tokens": int, "gradient_checkpointing": bool},
        }
    },
    "data!": {"class_path": str, "init_args": {"stage": str, "protocol": str, "forgotten_by": str | None}},
    "trainer": dict,
    "evaluation": {"gold": str | None, "max_new_tokens": int},
    "report": {"people": list | None, "photos": bool},
}
PROVENANCE = {
    "data": {"root": str, "fingerprint": str, "requests": [[str]]},
    **dict.fromkeys(("base_weights", "base_commit", "base_revision", "base_fingerprint", "quantize"), str | None),
    "dtype": str,
    "method": dict | None,
    "irrelevant_images": dict | None,
    "versions": dict,
}
KEY_TOKENS = [
    {
        **dict.fromkeys(("person!", "modality!", "question!", "answer!"), str),
        "number!": int,
        "tokens!": [{"token!": str, "entropy!": NUMBER, "private!": bool, "top!": [[str, NUMBER]]}],
    }
]
PORTRAITS = {"*": {"*": str}}

WORDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


def check_shape(file: Path, found: Any, shape: Any, remedy: str, where: str = "") -> None:
    """Makes sure that a file holds what is read of it; an error names the place, what is there, what was expected."""
    kind: Any = type(shape) if isinstance(shape, dict | list) else shape
    length = len(shape) if isinstance(shape, list) and len(shape) > 1 else None
    if not isinstance(found, kind) or (length and len(found) != length):
        words = dict.fromkeys(WORDS[one] for one in get_args(kind) or [kind] if one is not NoneType)
        expected = " or ".join(words) + (f" of {length}" if length else "")
        place = f"{' '.join(where.split())}: " if where else ""
        shown = "nothing" if found is None else short(found)
        raise UserError(f"{file}: {place}found {shown}, expected {expected}; {remedy}")
    if isinstance(shape, dict):
        known = {name.removesuffix("!"): inner for name, inner in shape.items()}
        needed = {name.removesuffix("!") for name in shape if name.endswith("!")}
        for name, value in {**dict.fromkeys(needed), **found}.items():
            check_shape(file, value, known.get(name, known.get("*", object)), remedy, f"{where}.{name}".lstrip("."))
    elif isinstance(shape, list):
        for number, value in enumerate(found):
            check_shape(file, value, shape[number % len(shape)], remedy, f"{where}[{number}]")
