"""The README.md that travels with weights: what they are, what was measured, what they do not promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from viker_lightning.metrics import read_numbers
from viker_lightning.storage.files import write_text
from viker_lightning.storage.runs import Run, names

from .html import rendered

Kind = Literal["adapter", "merged", "model"]

DATA = (".jsonl", ".json", ".csv")

GOOD = {"min": "low", "max": "high", "gold": "near gold", None: ""}


def write_cards(run: Path, results: dict[str, Any]) -> None:
    """Writes ``README.md`` into each folder of weights that a run has, if the run wrote where it comes from."""
    if not (provenance := Run(run, results).provenance):
        return
    kinds: tuple[Kind, ...] = (names.ADAPTER, names.MERGED, names.MODEL)
    for kind in kinds:
        if (run / kind).is_dir():
            write_text(run / kind / "README.md", model_card(kind, provenance, results))


def model_card(kind: Kind, provenance: dict[str, Any], results: dict[str, Any]) -> str:
    """The text of a model card.

    It names no person and no local path: how many are forgotten, not who.
    """
    settings = []
    for name, usual in (("method", ""), ("training", "AdamW"), ("adapter", "LoRA")):
        if found := dict(provenance.get(name) or {}):
            title = found.pop("name", usual)
            settings.append((name, title, ", ".join(f"{key} {_public(value)}" for key, value in found.items())))
    before, after = results.get("before", {}), results["after"]
    shown = [one for one in read_numbers(results["metrics"]).values() if "card" in one.shown]
    page = {
        "kind": kind,
        "made": provenance,
        "base": _public(provenance["base_weights"]),
        "root": _public(provenance["data"]["root"]),
        "revision": provenance.get("base_commit"),
        "unlearned": provenance["data"]["stage"] == "unlearn",
        "method": (provenance.get("method") or {"name": "an unrecorded method"})["name"],
        "settings": settings,
        "results": results,
        "numbers": [
            (split, one.name, GOOD[one.better(split)], before.get(split, {}).get(one.name), numbers[one.name])
            for split, numbers in after.items()
            for one in shown
            if one.name in numbers
        ],
        "measured": [one for one in shown if any(one.name in numbers for numbers in after.values())],
    }
    return rendered("card.md", page) + "\n"


def _public(value: Any) -> str:
    """A value as it may be shown to anybody: a path on this machine may name people."""
    if not isinstance(value, str) or value.startswith("mini/"):
        return str(value)
    parts = Path(value).parts
    local = Path(value).exists() or Path(value).is_absolute() or len(parts) > 2 or Path(value).suffix in DATA
    return "a local file or folder" if local else value
