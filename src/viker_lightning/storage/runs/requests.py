"""Requests to forget that come one after another: whom a run has forgotten, and whom those before it."""

from __future__ import annotations

from pathlib import Path

from viker_lightning.errors import UserError

from .names import PROVENANCE
from .read import read_run


def requests_of(run: str | Path) -> list[list[str]]:
    """Who was forgotten by a run and by those it goes on from.

    Args:
        run: folder of a finished unlearning run.

    Returns:
        Names or IDs of people, request by request, oldest first; the last one is the run's own.

    Raises:
        UserError: if the run is not finished, or does not say whom it has forgotten.
    """
    found: list[list[str]] = read_run(run, "data.forgotten_by").provenance.get("data", {}).get("requests", [])
    if not found or not all(found):
        raise UserError(
            f"{Path(run) / PROVENANCE}: does not say whom the run has forgotten; give the folder of an unlearning run, "
            "or run it again"
        )
    return found
