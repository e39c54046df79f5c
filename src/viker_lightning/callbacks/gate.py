"""The stage-1 gate of an unlearning run."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback, Trainer

from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import Knowledge, measure_knowledge
from viker_lightning.training import Finetune, Unlearn


class KnowledgeGate(Callback):
    """Stops an unlearning run whose vanilla model does not know the forget set or does not look at the image.

    Args:
        known: least share of private parts the model must know (see :class:`~viker_lightning.evaluation.Knowledge`).
        shown: least share of answers about the person shown, when asked about another.
        asked: largest share of answers about the person asked about, when another is shown.
    """

    def __init__(self, known: float = 0.5, shown: float = 0.5, asked: float = 0.25) -> None:
        self.known, self.shown, self.asked = known, shown, asked

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Reports what a fine-tuned model knows."""
        if isinstance(pl_module, Finetune):
            pl_module.report["knowledge"] = asdict(self.measure(trainer, pl_module))

    def measure(self, trainer: Trainer, pl_module: Any) -> Knowledge:
        """Asks the forget questions, straight and with other people's photos."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        people = {p.id: p for p in data.people()}
        groups = data.evaluation(Split.FORGET, "image")
        unlearning = isinstance(pl_module, Unlearn)  # the vanilla model is asked, not an adapter that is gone on with
        with pl_module.mllm.frozen() if unlearning else contextlib.nullcontext():
            others = [p.id for p in data.people(data.retain_ids) if p.images]
            return measure_knowledge(pl_module.mllm, groups, people, others)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Measures, and stops the run if the bounds are not met.

        Raises:
            UserError: saying what was measured and what was expected.
        """
        if (
            not isinstance(pl_module, Unlearn) or trainer.global_step > 0
        ):  # resumed: the vanilla model has passed already
            return
        m = self.measure(trainer, pl_module)
        pl_module.report["knowledge"] = asdict(m)
        if m.known < self.known or m.shown < self.shown or m.asked > self.asked:
            raise UserError(
                f"the vanilla model does not know the forget set well enough to unlearn it: measured {m}; "
                f"expected known >= {self.known}, shown >= {self.shown}, asked <= {self.asked}; "
                f"train it longer or lower the gate's bounds"
            )
