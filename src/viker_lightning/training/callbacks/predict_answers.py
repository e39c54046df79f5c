"""Answers to a file of questions, before and after unlearning side by side."""

import json
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from viker_lightning.data.datasets import Questions
from viker_lightning.data.datasets.questions import Ask, image_group
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, generate, split_to_budget
from viker_lightning.reporting import side_by_side
from viker_lightning.storage.files import write_text
from viker_lightning.storage.runs import keep_earlier, names
from viker_lightning.terminal.shown import Plain
from viker_lightning.training.base import Stage

from .trainer_parts import data_of, gathered, run_folder

QUESTIONS_PER_PASS = 32


class Answers(Callback):
    """Answers :class:`~viker_lightning.data.datasets.Questions` during predict; with other data it does nothing.

    The run folder gets ``answers.jsonl``: every row of the questions, in their order, with ``before``, what the model
    says without its adapter (null where it has none), and ``after``, what it says. Earlier answers there are kept as
    ``answers-<n>.jsonl``. The first rows are printed.

    Args:
        max_new_tokens: where an answer ends at the latest.
        shown: how many rows are printed.
    """

    def __init__(self, max_new_tokens: int = 50, shown: int = 20) -> None:
        if max_new_tokens < 1 or shown < 0:
            raise UserError(f"answers: max_new_tokens={max_new_tokens} must be >= 1 and shown={shown} >= 0")
        self.max_new_tokens, self.shown = max_new_tokens, shown
        self._found: list[tuple[int, str | None, str]] = []

    @override
    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Stage, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        if isinstance(data_of(trainer), Questions):
            mllm = pl_module.mllm
            before: list[str | None] = [None] * sum(map(len, batch.content))
            with mllm.together():
                if mllm.adapted:
                    with mllm.frozen():
                        before = [*self._answered(mllm, batch.content)]
                after = self._answered(mllm, batch.content)
            numbers = [ask.number for asks in batch.content for ask in asks]
            self._found += zip(numbers, before, after, strict=True)

    def _answered(self, mllm: MLLM, content: list[list[Ask]]) -> list[str]:
        """Greedy answers, in the order of the questions."""
        parts = split_to_budget(mllm, [image_group(asks) for asks in content], QUESTIONS_PER_PASS)
        with torch.no_grad():
            return [text for part in parts for text in chain(*generate(mllm, part, self.max_new_tokens))]

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: Stage) -> None:
        data = data_of(trainer)
        if not isinstance(data, Questions):
            return
        found = gathered(trainer, self._found)
        if not trainer.is_global_zero:
            return
        said = {number: {"before": before, "after": after} for number, before, after in found}
        rows = [ask.row | said[ask.number] for ask in data.asks]
        file = run_folder(trainer) / names.ANSWERS
        keep_earlier(file.parent, file.name)
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        console = Plain()
        console.print(side_by_side(rows[: self.shown]))
        rest = f", {len(rows) - self.shown} more than shown" if len(rows) > self.shown else ""
        console.print(f"{len(rows)} answers{rest}: {file}", highlight=False, soft_wrap=True)
