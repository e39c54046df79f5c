"""Requests to forget that come one after another: whom a run has forgotten, and whom those before it."""

from __future__ import annotations

import json
from pathlib import Path

from viker_lightning.errors import UserError, short

from .names import PROVENANCE, check_finished


def requests_of(run: str | Path) -> list[list[str]]:
    """Who was forgotten by a run and by those it goes on from.

    Args:
        run: folder of a finished unlearning run.

    Returns:
        Names or IDs of people, request by request, oldest first; the last one is the run's own.

    Raises:
        UserError: if the run is not finished, or does not say whom it has forgotten.
    """
    check_finished(run)
    file = Path(run) / PROVENANCE
    try:
        found: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))["data"]["requests"]
        if not found or not all(isinstance(people, list) and {*map(type, people)} == {str} for people in found):
            raise ValueError(f"found {short(found)} under data, requests")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{file}: does not say whom the run has forgotten ({type(error).__name__}: {error}); give the folder of an "
            "unlearning run, or run it again"
        ) from error
    return found
