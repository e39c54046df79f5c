"""A finished run, as its folder tells it."""

import csv
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from viker_lightning.errors import UserError
from viker_lightning.metrics.prediction import Prediction

from . import names
from .shape import CONFIG, KEY_TOKENS, PORTRAITS, PROVENANCE, RESULTS, check_shape
from .write import read_predictions

log = logging.getLogger(__name__)

Summary = dict[str, dict[str, float]]

PHOTO = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+")


@dataclass(eq=False)
class Run:
    """What the files of a run folder hold; everything but ``results.json`` is read when asked for.

    Attributes:
        folder: the run folder.
        results: the content of ``results.json``.
    """

    folder: Path
    results: dict[str, Any]

    @property
    def before(self) -> Summary:
        """Numbers before training, by split."""
        return self.results["before"]

    @property
    def after(self) -> Summary:
        """Numbers after training, by split."""
        return self.results["after"]

    @cached_property
    def predictions(self) -> dict[str, list[Prediction]]:
        """Every answer, by the moment it was given at: ``before``, ``epoch 1``, ..., ``after``.

        Raises:
            UserError: if the file is missing or holds something else.
        """
        file = self.folder / names.PREDICTIONS
        try:
            found: dict[str, list[Prediction]] = {}
            for when, prediction in read_predictions(file):
                found.setdefault(when, []).append(prediction)
            return found
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{file}: holds no predictions ({reason}); run it again") from error

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of ``config.yaml``; empty if there is none.

        Raises:
            UserError: if it is not the config of a run, or was cut short.
        """
        return self._read(names.CONFIG, CONFIG, "run it again, or remove the file")

    def option(self, name: str, otherwise: Any = None) -> Any:
        """An option's value in ``config.yaml``.

        Args:
            name: its path there, e.g. ``data.init_args.stage``.
            otherwise: what it is if it is not there, or null.
        """
        found: Any = self.config
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return otherwise if found is None else found

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The content of ``provenance.json``; empty if there is none."""
        return self._read(names.PROVENANCE, PROVENANCE)

    @cached_property
    def key_tokens(self) -> list[dict[str, Any]]:
        """Forget answers token by token, from ``key_tokens.json``; empty for a run without ideal distribution."""
        return self._read(names.KEY_TOKENS, KEY_TOKENS)

    @cached_property
    def portraits(self) -> dict[str, dict[str, str]]:
        """Small pictures as data URIs by split and person, from ``portraits.json``; empty if none were to be kept.

        Raises:
            UserError: if one is no such picture.
        """
        found = self._read(names.PORTRAITS, PORTRAITS, "delete the file")
        for split, people in found.items():
            for person, photo in people.items():
                if not PHOTO.fullmatch(photo):
                    raise UserError(
                        f"{self.folder / names.PORTRAITS}: {split}/{person}: found {photo[:20]!r}, expected a JPEG or "
                        "PNG data URI; delete the file"
                    )
        return found

    @cached_property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Every logged value as ``(step, value)``, in order, from ``metrics.csv`` and those before a resumption.

        A last line that ends too soon, as a killed run leaves it, is left out with a warning.

        Raises:
            UserError: if something else in a file is no number.
        """
        found: dict[str, dict[int, float]] = {}
        files = sorted(self.folder.glob("metrics-*.csv"), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))
        for file in [*files, self.folder / names.METRICS]:
            if file.is_file():
                for name, step, value in _logged(file):
                    found.setdefault(name, {})[step] = value  # what was repeated counts
        return {name: sorted(values.items()) for name, values in found.items()}

    @property
    def method(self) -> str:
        """Class of the method; ``vanilla`` or ``gold`` for a fine-tuning run; the folder's name if nothing says so."""
        method = self.option("model.init_args.method")
        if method is None:
            return self.option("data.init_args.stage", self.folder.name)
        inside = self.option("model.init_args.method.init_args.method.class_path", "")
        return f"{method['class_path'].rpartition('.')[2]} {str(inside).rpartition('.')[2]}".strip()

    @property
    def seed(self) -> int | None:
        """Seed of the run, if it was noted."""
        return self.results.get("seed")

    @property
    def gold_folder(self) -> Path | None:
        """The run folder of the gold model it was compared with, if that can still be read."""
        given = self.option("evaluation.gold")
        folder = Path(given) if given else None
        return folder if folder and names.is_finished(folder) else None

    def people(self, split: str) -> list[str]:
        """IDs of the people of a split."""
        return sorted({p.person for found in self.predictions.values() for p in found if p.split == split})

    def _read(self, name: str, shape: Any, remedy: str = "run it again") -> Any:
        file = self.folder / name
        if not file.is_file():
            return type(shape)()
        kind, load = ("YAML", yaml.safe_load) if name == names.CONFIG else ("JSON", json.loads)
        try:
            found = load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{file}: not {kind} ({' '.join(str(error).split())}); {remedy}") from error
        check_shape(file, found, shape, remedy)
        return found


def _logged(file: Path) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of everything in a file of the CSV logger."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            log.warning(
                "%s, line %d: it ends too soon and is left out; a killed run leaves such a line", file, len(lines)
            )
            lines.pop()
        for number, row in enumerate(csv.DictReader(lines), start=2):
            where = f"{file}, line {number}"
            if None in row or "step" not in row:
                raise UserError(f"{where}: found {len(row)} cells, not those of line 1, one of them 'step'; {_MEND}")
            step = int(_number(where, "step", row.pop("step") or "0"))
            for name, value in row.items():
                if value:
                    yield name, step, _number(where, name, value)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: not the CSV of a logger ({error}); {_MEND}") from error


_MEND = "remove the line or the file, from which only curves are drawn"


def _number(where: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where}, column {name!r}: found {text[:20]!r}, expected a number; {_MEND}") from None


def read_run(folder: str | Path, option: str = "") -> Run:
    """Reads a finished run.

    Args:
        folder: the run folder.
        option: that names it, for the message.

    Raises:
        UserError: if the run is not finished, or its results are not whole.
    """
    names.check_finished(folder, option)
    run = Run(Path(folder), {})
    run.results = run._read(names.RESULTS, RESULTS)
    return run


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
            f"{Path(run) / names.PROVENANCE}: does not say whom the run has forgotten; give the folder of an "
            "unlearning run, or run it again"
        )
    return found
