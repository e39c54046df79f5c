"""The answers of a run, as ``predictions.parquet``: written whole or not at all."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from viker_lightning.errors import UserError
from viker_lightning.metrics import Prediction
from viker_lightning.storage.files import replacing

from . import names


def read_predictions(path: Path) -> list[tuple[str, Prediction]]:
    """Reads what :func:`write_predictions` wrote."""
    rows = pq.read_table(path).to_pylist()
    spans = [{name: tuple(row.get(name, ())) for name in ("private", "correction")} for row in rows]
    return [(row.pop("when"), Prediction(**{**row, **own})) for row, own in zip(rows, spans, strict=True)]


def write_predictions(path: Path, predictions: Iterable[tuple[str, Prediction]]) -> None:
    """Writes predictions with the moment (``before``, ``after``, ...) they were made at."""
    rows = [
        {"when": when, **asdict(p), "private": list(p.private), "correction": list(p.correction)}
        for when, p in predictions
    ]
    with replacing(path) as file:
        pq.write_table(pa.Table.from_pylist(rows), file)


def gold_answers(gold: str | None, file: str | None) -> list[Prediction]:
    """What the gold model answered in the end: in a named file, or in its run folder, if that has predictions.

    It is an error if the named file is not there or holds none.
    """
    path = Path(file) if file else Path(gold) / names.PREDICTIONS if gold else None
    if path is None or (file is None and not path.is_file()):
        return []
    try:
        found = read_predictions(path)
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"evaluation.gold_predictions: {str(path)!r} holds no predictions ({reason}); give predictions.parquet of "
            "the gold run"
        ) from error
    last = [when for when, _ in found if when == "after"] or [when for when, _ in found]
    return [prediction for when, prediction in found if when == last[-1]]
