"""What a report shows besides numbers, and the report itself, at the end of a run."""

import base64
import difflib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, Trainer
from PIL import Image
from typing_extensions import override

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import ImageGroup, Picture, Split
from viker_lightning.errors import UserError
from viker_lightning.ideal import key_token_example
from viker_lightning.reporting import FEW, QUESTIONS, write_report
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs import names
from viker_lightning.training import Unlearn
from viker_lightning.training.base import Stage

from .trainer_parts import data_of, run_folder

log = logging.getLogger(__name__)

SIDE = 160
"""Pixels of the longer side of a portrait."""


class Report(Callback):
    """Writes ``key_tokens.json``, ``portraits.json`` and ``report.html`` when a fit has ended.

    A run never fails for its report: what goes wrong is a warning, and ``python -m viker_lightning.reporting
    RUN_FOLDER`` writes the page again from the folder's files. What is shown of key tokens is asked before the first
    step, since a model that is trained in full is another one in the end, and kept in checkpoints.

    Args:
        people: IDs of the people whose answers are shown; by default the first few of each split.
        photos: whether small pictures of these people are kept in ``portraits.json`` and shown. Turn it off before a
            folder or its report with real people is handed on.
        to_wandb: whether a W&B run gets a few questions, answers and pictures of people, too, and what the report
            shows of key tokens. It stays on this machine until it is synced, unless the logger is told
            ``offline: false``; numbers and config are logged either way.
    """

    def __init__(self, people: list[str] | None = None, photos: bool = True, to_wandb: bool = True) -> None:
        self.people, self.photos, self.to_wandb = people, photos, to_wandb
        self._tokens: list[dict[str, Any]] | None = None  # what is shown of key tokens, once it was asked

    @override
    def setup(self, trainer: Trainer, pl_module: Stage, stage: str) -> None:
        """Removes what an earlier part of the run showed; an error if somebody to be shown is not in the data."""
        if stage == "fit" and self.people:
            data = data_of(trainer)
            evaluated = sorted({group.person for group in data.evaluation_groups()})
            if unknown := [person for person in self.people if person not in evaluated]:
                near = difflib.get_close_matches(unknown[0], evaluated, 1) or evaluated[:5]
                raise UserError(
                    f"report.people: found {unknown[0]!r}, expected IDs of people who are evaluated, e.g. "
                    f"{', '.join(near)}; name others, or leave it out for the first few"
                )
        if stage == "fit" and trainer.is_global_zero:
            for name in (names.KEY_TOKENS, names.PORTRAITS, names.REPORT):
                (run_folder(trainer) / name).unlink(missing_ok=True)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: Stage, batch: Any, batch_idx: int) -> None:
        """Asks what is shown of key tokens, once, while the model is the original; every process does."""
        if self._tokens is None and not pl_module.mllm.moved:
            self._tokens = []
            with _warned_of("the report will have no key tokens"), pl_module.mllm.together():
                self._tokens = list(self._key_tokens(data_of(trainer), pl_module))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if not trainer.is_global_zero:
            return
        run, data = run_folder(trainer), data_of(trainer)
        with _warned_of(f"{run}: the run itself is complete; no report"):
            if self._tokens:
                write_json(run / names.KEY_TOKENS, self._tokens)
            if self.photos and (portraits := self._portraits(data)):
                write_json(run / names.PORTRAITS, portraits)
            log.info("%s written", write_report(run))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"people": self.people, "tokens": self._tokens}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it up, unless others are to be shown now."""
        if state_dict["people"] == self.people:
            self._tokens = state_dict["tokens"]

    def _key_tokens(self, data: Benchmark, pl_module: Stage) -> Iterator[dict[str, Any]]:
        """Forget answers of the people shown with what the ideal distribution says of each token."""
        ideal = pl_module.ideal if isinstance(pl_module, Unlearn) else None
        if ideal is None:
            return
        for group in self._shown(data, Split.FORGET):
            for number, vqa in enumerate(group.vqa[:QUESTIONS]):
                encoded = pl_module.mllm.encoder.encode(vqa, group.image is not None)
                yield {
                    "person": group.person,
                    "modality": "text" if group.image is None else "image",
                    "number": number,
                    "question": vqa.question,
                    "answer": vqa.answer,
                    "tokens": key_token_example(ideal, encoded),
                }
        if ideal.keep != "off":
            ideal.release()

    def _portraits(self, data: Benchmark) -> dict[str, dict[str, str]]:
        """One small picture for each person shown, by split."""
        shown = {split: self._shown(data, split) for split in data.splits}
        found = {split: {g.person: portrait(g.image) for g in groups if g.image} for split, groups in shown.items()}
        return {str(split): people for split, people in found.items() if people}

    def _shown(self, data: Benchmark, split: Split) -> Sequence[ImageGroup]:
        """The first group of each person shown of a split."""
        firsts: dict[str, ImageGroup] = {}
        for group in data.evaluation(split):
            firsts.setdefault(group.person, group)
        chosen = self.people if self.people is not None else sorted(firsts)[: FEW.get(split, 0)]
        return [firsts[person] for person in chosen if person in firsts]


@contextmanager
def _warned_of(what: str) -> Iterator[None]:
    """Logs a warning in place of any error, so that a page that fails stops no run."""
    try:
        yield
    except Exception as error:
        log.warning("%s (%s: %s)", what, type(error).__name__, error)


def portrait(picture: Picture, side: int = SIDE) -> str:
    """A picture, at most so many pixels a side, as the data URI of a JPEG."""
    image = picture.open()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
