"""The record of a tuning, read: which settings of which methods were tried, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from viker_lightning.errors import UserError


def read_tuning(file: Path) -> dict[str, Any]:
    """The record of a tuning."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as a record of make tune ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("methods"), dict):
        raise UserError(f"{file}: no record of make tune; found no 'methods' in it; make it again with make tune")
    return found


def settings_tried(file: Path) -> list[dict[str, Any]]:
    """Every setting of a record: method, setting, score and its parts; by method, the best first, failed ones last."""
    rows = []
    for name, found in read_tuning(file)["methods"].items():
        parts = ("number", "setting", "score", "forgetting", "retention")
        mine = [{"method": name} | {part: one.get(part) for part in parts} for one in found["trials"]]
        rows += sorted(mine, key=lambda one: (one["score"] is None, one["score"], one["number"]))
    return rows
