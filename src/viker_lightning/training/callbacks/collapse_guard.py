"""Stops a run that breaks its model, and keeps the last adapter that was good."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.tensor import DTensor
from typing_extensions import override

from viker_lightning.data.records import ImageGroup, Person
from viker_lightning.errors import UserError, check_least
from viker_lightning.evaluation import measure_health
from viker_lightning.models.dtensor import distribute_as, gather_as, local_part
from viker_lightning.training import Unlearn
from viker_lightning.training.base import Stage

from .trainer_parts import data_of

log = logging.getLogger(__name__)


class CollapseGuard(Callback):
    """Looks after every step whether loss and gradient are finite, and now and then whether retained people are intact.

    When a bound is crossed the run stops, says which number crossed it, puts the adapter back to what it was at the
    last check that went well, and ends as usual: that adapter is evaluated and saved, and ``results.json`` says
    ``stopped``. If no check has gone well since training started, the run ends in an error. A stopped run that is
    killed before it has ended resumes at its evaluation. The good adapter, or without LoRA all that is trained, is
    kept in main memory.

    Args:
        every_n_steps: optimizer steps between two checks, and so the most that a stopped run loses.
        max_retain_loss: largest mean cross-entropy of the answer tokens of retain questions, nats; ``None`` is no
            bound.
        max_repetition: largest mean share of repeated word trigrams in greedy answers to them, 0 to 1; ``None`` is no
            bound.
        questions: how many retain questions are asked, one of a person, always the same.
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        max_retain_loss: float | None = None,
        max_repetition: float | None = None,
        questions: int = 16,
    ) -> None:
        if every_n_steps < 1 or questions < 1:
            raise UserError(f"guard: every_n_steps={every_n_steps} and questions={questions} must be at least 1")
        check_least("guard", 0, max_retain_loss=max_retain_loss, max_repetition=max_repetition)
        self.every_n_steps, self.questions = every_n_steps, questions
        self.bounds = {"retain loss": max_retain_loss, "repetition": max_repetition}
        self._good_step = 0
        self._good: dict[str, Tensor] = {}  # in main memory; of sharded weights what this process holds of them
        self._shards: dict[str, DTensor] = {}  # the weights themselves, where each process holds a part
        self._saved: dict[str, Tensor] = {}  # whole, from a checkpoint
        self._groups: list[ImageGroup] = []

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: Stage, checkpoint: dict[str, Any]) -> None:
        """Trains no further if the run had stopped here."""
        if trainer.state.fn == TrainerFn.FITTING and pl_module.report.stopped:
            trainer.should_stop = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        """Chooses the questions; an error if nobody is retained, or the bounds are crossed to begin with."""
        pl_module.report.stopped = None
        if not isinstance(pl_module, Unlearn):
            return
        if any(bound is not None for bound in self.bounds.values()):
            people = data_of(trainer).streams.get("retain", [])
            self._groups = one_question_each(people, self.questions)
            if not self._groups:
                raise UserError("guard: bounds need retained people, and the data has none; leave the bounds out")
            if trainer.global_step == 0 and (why := self._crossed(trainer, pl_module)):
                raise UserError(f"guard: before training the {why}; raise the bound")
        saved, self._saved, trained = self._saved, {}, _trained(pl_module)
        self._shards = {name: p for name, p in trained.items() if isinstance(p, DTensor)}
        for name, p in trained.items():
            self._keep(name, distribute_as(saved[name], p).to(p.dtype) if saved else p)
        self._good_step = self._good_step if saved else trainer.global_step

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: Stage, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Checks, and keeps the adapter or puts it back."""
        if not isinstance(pl_module, Unlearn):
            return
        if not pl_module.step.broken and trainer.global_step % self.every_n_steps == 0:
            why = self._crossed(trainer, pl_module)
            if why is None:
                self._good_step = trainer.global_step
                for name, p in _trained(pl_module).items():
                    self._keep(name, p)
            else:
                pl_module.step.broken = f"the {why}"
        if pl_module.step.broken and self._good_step > 0:
            self._put_back(trainer, pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        """The last good adapter, whole, so that a resumed run falls back to it; all processes ask together."""
        shards = self._shards
        weights = {n: gather_as(w, shards[n]).cpu() if n in shards else w for n, w in self._good.items()}  # one by one
        return {"step": self._good_step, "weights": weights or self._saved}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._good_step, self._saved = state_dict.get("step", 0), state_dict.get("weights", {})

    def _crossed(self, trainer: Trainer, pl_module: Stage) -> str | None:
        """Which number crossed its bound, if any, as the first process sees it: rounding must not part the others."""
        why: str | None = trainer.strategy.broadcast(self._over(pl_module))
        return why

    def _over(self, pl_module: Stage) -> str | None:
        if not self._groups:
            return None
        with pl_module.mllm.together():
            found = measure_health(pl_module.mllm, self._groups, answers=self.bounds["repetition"] is not None)
        for name, bound in self.bounds.items():
            if bound is not None and not found[name] <= bound:  # nan crosses, too
                return f"{name} is {found[name]:.4g}, over its bound {bound:.4g}"
        return None

    def _keep(self, name: str, weight: Tensor) -> None:
        """Copies a weight to main memory, always to the same place there."""
        here = local_part(weight.detach())
        if name not in self._good:
            self._good[name] = torch.empty_like(here, device="cpu")
        self._good[name].copy_(here)

    def _put_back(self, trainer: Trainer, pl_module: Stage) -> None:
        why = f"step {trainer.global_step}: {pl_module.step.broken}"
        with torch.no_grad():
            for name, p in _trained(pl_module).items():
                local_part(p).copy_(self._good[name])
        pl_module.step.broken = None
        pl_module.report.stopped = {"step": trainer.global_step, "why": why, "good_step": self._good_step}
        log.warning("stopped at %s; the adapter is that of step %d", why, self._good_step)
        trainer.should_stop = True


def _trained(pl_module: Stage) -> dict[str, Tensor]:
    return {name: p for name, p in pl_module.named_parameters() if p.requires_grad}


def one_question_each(people: Sequence[Person], most: int) -> list[ImageGroup]:
    """The first question about each of some people, evenly chosen, with their first photo."""
    asked = [p for p in people if p.vqa]
    chosen = [asked[i * len(asked) // most] for i in range(most)] if len(asked) > most else asked
    return [ImageGroup(p.id, p.images[0] if p.images else None, vqa=p.vqa[:1]) for p in chosen]
