"""A Trainer for scripts and notebooks that has what the command line gives a run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import CSVLogger

from viker_lightning.errors import UserError

from .evaluation import Evaluation
from .knowledge_gate import KnowledgeGate
from .order import LAST, OPTIONS, trainer_defaults, with_first


def trainer(run: str | Path, *callbacks: Callback, **options: Any) -> Trainer:
    """A Lightning Trainer with the command's defaults: gate, guard, clipping, evaluation, report, safe checkpoints.

    Two things a run of the command has and this has not: ``config.yaml``, which attacks and ``chat`` read, and W&B, for
    which ``logger=[CSVLogger(...), WandbLogger(...)]`` is to be given. Seed everything first.

    Args:
        run: its folder; what a finished run has left there is written over.
        callbacks: each takes the place of the command's of its class, as ``Evaluation(gold="runs/gold")`` does; one of
            another class comes before them all.
        options: of Lightning's Trainer, in place of the command's.

    Raises:
        UserError: if two callbacks are of one class of the command's.
    """
    given = {type(callback): callback for callback in callbacks}
    kinds = [*OPTIONS.values(), *LAST]
    for kind in kinds:
        if sum(type(callback) is kind for callback in callbacks) > 1:
            raise UserError(f"trainer: found several {kind.__name__}, expected one; leave the others out")
    others = [callback for callback in callbacks if type(callback) not in kinds]
    evaluation = given.get(Evaluation, Evaluation())
    assert isinstance(evaluation, Evaluation)
    made = {Evaluation: evaluation, KnowledgeGate: KnowledgeGate(max_new_tokens=evaluation.max_new_tokens), **given}
    defaults = trainer_defaults() | {"default_root_dir": str(run), "logger": CSVLogger(str(run), "", "")}
    first = with_first(others, options.get("enable_progress_bar"))
    if not any(isinstance(callback, ProgressBar) for callback in first):
        options["enable_progress_bar"] = False
    chosen = [*first, *(made[kind] if kind in made else kind() for kind in kinds)]
    return Trainer(**{**defaults, **options, "callbacks": chosen})
