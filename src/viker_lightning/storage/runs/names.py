"""What lies in a run folder under which name, whether the run is finished, and where its weights are."""

from pathlib import Path
from typing import Final

from viker_lightning.errors import UserError

RESULTS = "results.json"
"""Every number of the run. It is written last but for the report, so that it is there in a finished run only."""
PREDICTIONS = "predictions.parquet"
CONFIG = "config.yaml"
"""Written anew by whatever runs: alone it is of a run that did nothing."""
PROVENANCE = "provenance.json"
METRICS = "metrics.csv"
"""What the CSV logger writes; its curves before a resumption are in ``metrics-<n>.csv``."""
ADAPTER: Final = "adapter"
MODEL: Final = "model"
MERGED: Final = "merged"
"""Folders of weights: the trained adapter, a model trained in full, a model with its adapter added."""
LANGUAGE_MODEL = "language_model"
"""Folder of the language model by itself, where it was asked for."""
LMMS_EVAL = "lmms_eval"
"""Folder of its questions as tasks of lmms-eval, where they were asked for."""
CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
REQUEUED = "hpc_ckpt_*.ckpt"
"""What Lightning writes when SLURM requeues a job."""
SOURCE = "method"
"""Folder with a copy of the method's files, where these are not this package's."""
KEY_TOKENS, PORTRAITS, REPORT = "key_tokens.json", "portraits.json", "report.html"
SKIPPED = "skipped.txt"
"""Rows of the data that were left out."""
SIMILARITY = "similarity.json"
ANSWERS = "answers.jsonl"
ATTACKS, ATTACKED = "attacks", "attacks/attacks.json"
"""Folder of the attacks on this run, and what came of them."""

OF_A_FIT = (
    *(RESULTS, ADAPTER, MERGED, LANGUAGE_MODEL, LMMS_EVAL, MODEL, CHECKPOINTS, PREDICTIONS),
    *(PROVENANCE, KEY_TOKENS, PORTRAITS, REPORT, SOURCE, SKIPPED, ATTACKS),
)
"""What only fit writes; ``config.yaml`` is left out."""

OF_ANY = (METRICS, SIMILARITY, ANSWERS)
"""What other commands may write, too."""

KEPT = ("metrics-*.csv", "answers-*.jsonl")
"""What is called so was there before a command wrote it anew."""

OF_A_COMMAND = (RESULTS, PREDICTIONS, CONFIG, SKIPPED)
"""What every command writes under a name of its own; see :func:`of_command`."""


def of_command(name: str, command: str | None) -> str:
    """What a file is called if a command wrote it: that of ``fit`` has the plain name.

    Args:
        name: of the file, e.g. ``results.json``.
        command: e.g. ``validate``, for ``results-validate.json``; ``None`` and ``fit`` are one.
    """
    stem, dot, ending = name.rpartition(".")
    return name if command in (None, "fit") else f"{stem}-{command}{dot}{ending}"


def is_finished(run: str | Path) -> bool:
    """Whether a fit in this folder has written its results."""
    return (Path(run) / RESULTS).is_file()


def check_finished(run: str | Path, option: str = "") -> None:
    """Refuses a folder that is not there or of a run that is not finished; the message begins with the option."""
    where = f"{option}: " if option else ""
    if not str(run) or not Path(run).is_dir():
        raise UserError(f"{where}{str(run)!r} is no folder; give that of a finished run")
    if not is_finished(run):
        raise UserError(f"{where}{run}: this run is not finished (no {RESULTS}); run it again")


def weights_folder(source: str | Path) -> str | Path:
    """The full weights in a run folder, or ``source`` itself if it is a model folder or a hub id.

    They are in ``model/``, or in ``merged/`` of a run that trained an adapter.

    Raises:
        UserError: if the run is not finished.
    """
    for inside in (Path(source) / MODEL, Path(source) / MERGED):
        if inside.is_dir():
            check_finished(source)
            return inside
    return source
