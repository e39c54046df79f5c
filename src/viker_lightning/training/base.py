"""What fine-tuning and unlearning share: loading, optimizer, packing, small checkpoints, evaluation steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer
from transformers import get_scheduler

from viker_lightning.data.encoding import Encoder
from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import ImageGroup, Labels
from viker_lightning.data.sampling import Bundle, epoch_steps
from viker_lightning.errors import UserError, check_least
from viker_lightning.files import replacing_folder
from viker_lightning.models import MLLM, AnswerTokens, Lora, Quantize, check_first_gradients
from viker_lightning.runs import names
from viker_lightning.runs.resume import check_names, check_optimizer, count_epochs, set_rates

from .engine import Engine, Groups, parts_of, warn_of_small_steps
from .optimizer import optimizer_of
from .projector import leave_alone, projector, reached, shows_images
from .sharding import FSDP2, average_gradients, clip_gradients, largest, shard

LOOKS = 10
"""At how many first steps gradients are looked at, at most; every look is a pass over all of them."""


class Stage(LightningModule):
    """A training stage of a multimodal LLM.

    Hyper-parameters are kept out of checkpoints on purpose, so that a resumed run obeys its config and command line.

    Args:
        lr: learning rate.
        weight_decay: weight decay.
        warmup_steps: linear warm-up.
        schedule: learning rate after the warm-up: ``constant``, ``linear`` to 0, or ``cosine`` to 3 % at the last step.
        engine: budgets, and what is kept where.
        optimizer: makes the optimizer, with ``lr`` and ``weight_decay`` as above; ``None`` is AdamW.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        engine: Engine = Engine(),  # noqa: B008 - jsonargparse reads the default
        optimizer: OptimizerCallable | None = None,
    ) -> None:
        super().__init__()
        check_least("model", 0, lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        self.engine, self.optimizer = engine, optimizer
        self.lr, self.weight_decay, self.warmup_steps, self.schedule = lr, weight_decay, warmup_steps, schedule
        self.mllm: MLLM
        self.base_weights = ""
        self.quantize: Quantize | None = None
        self.revision: str | None = None
        self.lora: Lora | None = None
        self.weights_dtype = "float32"
        self.trust_remote_code = False
        self._looks = LOOKS
        self._shown = False  # whether the running step has an image
        self.report: dict[str, Any] = {}  # what else belongs into results.json
        self.questions = 0  # of the running step
        self.measured: dict[str, Tensor] = {}  # what is logged of the running step
        self.broken: str | None = None  # which number of the running step is not as it must be
        self._saved_by = "AdamW"  # which optimizer the state of a resumed run is of
        self.strict_loading = False  # checkpoints hold trained weights only; on_load_checkpoint checks them

    def load_mllm(self) -> MLLM:
        """Builds the model of this stage; called once the data is known."""
        raise NotImplementedError

    stages: tuple[str, ...] = ()
    whole_steps = False  # whether a step must pass the model at once

    def configure_model(self) -> None:
        """Loads the model when the trainer asks for it.

        Raises:
            UserError: if the data serves another stage.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.state.fn == TrainerFn.FITTING and data.stage not in self.stages:
            raise UserError(
                f"data.stage: found {data.stage!r}, but {type(self).__name__} needs {' or '.join(self.stages)}; set it"
            )
        if not hasattr(self, "mllm"):
            self.mllm = mllm = self.load_mllm()
            mllm.max_sequence_tokens, mllm.max_tokens = self.engine.max_sequence_tokens, self.engine.max_tokens
            mllm.vision.keep = self.engine.features
            if data.as_published:
                template = data.as_published.template(mllm.encoder.template)
                placeholders = mllm.image_positions if data.as_published.placeholders else 0
                mllm.encoder = Encoder(mllm.encoder.tokenizer, template, placeholders, mllm.encoder.room)
            if self.trainer.state.fn == TrainerFn.FITTING:
                for text in data.texts():  # now, and not where training meets it
                    mllm.encoder.check(text)
            if self.engine.gradient_checkpointing:
                mllm.checkpoint_gradients()
            if isinstance(self.trainer.strategy, FSDP2):
                shard(mllm, self.trainer.strategy.device_mesh["data_parallel"])

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As usual, except that adapters are in fp32 whatever the model is cast to, before DDP looks at their types."""
        super().to(*args, **kwargs)
        if hasattr(self, "mllm") and self.mllm.adapted:
            self.mllm._apply(lambda p: p.float() if p.requires_grad else p)  # sharded weights cannot be set one by one
        return self

    def configure_optimizers(self) -> Any:
        """The optimizer of what is trainable; adapters stay in fp32, since small steps vanish in bf16."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        warn_of_small_steps(trainable)
        optimizer = optimizer_of(self.optimizer, trainable, self.lr, self.weight_decay)
        optimizer.register_load_state_dict_pre_hook(self._check_optimizer)
        name = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine_with_min_lr"}[self.schedule]
        last = {"min_lr_rate": 0.03} if self.schedule == "cosine" else None
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = get_scheduler(name, optimizer, self.warmup_steps, steps, scheduler_specific_kwargs=last)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _check_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Makes sure that a state is loaded into an optimizer of the kind that saved it."""
        check_optimizer(self._saved_by, type(optimizer).__name__)

    def setup(self, stage: str) -> None:
        """Takes accumulated batches as one step: same memory, and means are over all of it."""
        together = self.trainer.accumulate_grad_batches
        if stage == "fit" and together > 1:
            self.trainer.datamodule.batches_per_step = together  # type: ignore[attr-defined]
            self.trainer.accumulate_grad_batches = 1

    def training_step(self, batch: Bundle, batch_idx: int) -> Tensor:
        """Loss and gradient of a step, in as many parts as the token budget asks for.

        The graph of all parts but the last is gone when this returns; their gradients are there already. A process
        group therefore averages once, at the last part.

        Raises:
            UserError: if the loss is not finite.
        """
        most = None
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.batches_per_step > 1:
            most = data.batch_size
        groups = {name: self.labelled(found) for name, found in self.streams(batch.content).items()}
        self._shown = shows_images(groups)
        self.questions = sum(len(g.vqa) for found in groups.values() for g in found)
        parts = parts_of(self.mllm, groups, most, self.whole_steps)
        turns = self.mllm.turns
        if turns is not None:
            parts += [{name: [] for name in groups}] * (largest(len(parts), self.device) - len(parts))
        totals = {name: self._totals(found) for name, found in groups.items()}
        terms: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            with self.mllm.together(keep=True):
                values = self.part(part, totals)
            loss = values["loss"] if turns is None else values["loss"] + turns.level()
            if turns is None and self.trainer.world_size > 1 and number == len(parts) and not shows_images(part):
                loss = loss + reached(self.mllm)
            terms = {k: terms.get(k, 0) + v.detach() for k, v in values.items()}
            if number < len(parts):
                self.trainer.strategy.backward(loss, None)
        self._log_terms(terms, sum(len(g.vqa) for g in next(iter(groups.values()))))
        return loss

    def streams(self, batch: Groups) -> Groups:
        """The image groups of a step that the loss uses, with the answers it uses."""
        return batch

    @property
    def labels(self) -> Labels:
        """Which tokens count in the loss, as the data's protocol says."""
        published = self.trainer.datamodule.as_published  # type: ignore[attr-defined]
        return published.labels if published else Labels.ANSWER

    def labelled(self, groups: list[ImageGroup]) -> list[ImageGroup]:
        """Image groups as the data's protocol trains on them: with questions and labels as published, if asked to."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.as_published is None:
            return groups
        return [data.as_published.trained(g, self.labels, f"{data.seed}/{self.global_step}") for g in groups]

    def part(self, groups: Groups, totals: dict[str, tuple[float, float]]) -> dict[str, Tensor]:
        """What a part of a step adds to its loss, and to whatever else is logged.

        Args:
            groups: image groups by stream, possibly none.
            totals: tokens and questions of the whole step by stream.
        """
        raise NotImplementedError

    def logged(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turns the summed terms of a step into the values that are logged."""
        return terms

    def tokens(self, batch: PackedBatch, total: tuple[float, float]) -> AnswerTokens:
        """Answer tokens of a part that know their step."""
        tokens = self.mllm.answer_tokens(batch)
        tokens.step = total
        return tokens

    def _totals(self, groups: Sequence[ImageGroup]) -> tuple[float, float]:
        """Tokens and questions of a step, as one process counts them: a mean over processes then counts them all."""
        encoded = [self.mllm.encoder.encode(vqa, g.image is not None) for g in groups for vqa in g.vqa]
        totals = torch.tensor([sum(len(q.answer) for q in encoded), len(encoded)], dtype=torch.float64)
        if self.trainer.world_size > 1:
            totals = totals.to(self.device, torch.float32)
            torch.distributed.all_reduce(totals)
            totals = totals / self.trainer.world_size
        tokens, questions = totals.tolist()
        return tokens, questions

    def _log_terms(self, terms: dict[str, Tensor], questions: int) -> None:
        if self.trainer.world_size > 1:  # at once: what is logged in the end may differ between processes
            values = torch.stack(list(terms.values()))
            torch.distributed.all_reduce(values)
            terms = dict(zip(terms, values / self.trainer.world_size, strict=True))
        if not torch.isfinite(terms["loss"]):
            self.broken = f"the loss is {terms['loss'].item()}"
        self.measured = self.logged(terms)
        for name, value in self.measured.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=questions)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops at what is broken, unless a callback has mended it.

        Raises:
            UserError: saying which number it was.
        """
        if self.broken:
            raise UserError(
                f"step {self.global_step}: {self.broken}, and no later adapter was good; lower model.lr or the weights "
                f"of the loss (last checkpoint: {Path(self.trainer.default_root_dir) / names.CHECKPOINTS})"
            )

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Does nothing: this is called between the parts of a step, whose gradients belong together."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps, and drops the gradients of the step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()
        self.mllm.moved = not self.mllm.adapted

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Averages gradients that sharding leaves alone, and makes sure, once, that they reach all that is trained."""
        if self.mllm.turns is not None:
            average_gradients(self.mllm)
        if self.trainer.world_size > 1 and projector(self.mllm) and not largest(int(self._shown), self.device):
            leave_alone(self.mllm)
        if self._looks:  # a projector can never be judged where no question has an image
            scaled = str(self.trainer.precision).startswith("16")
            judged = check_first_gradients(self.mllm, not scaled, self._shown)
            self._looks = 0 if judged else self._looks - 1

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """As usual, also where some weights are sharded and some are not."""
        if self.mllm.turns is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_gradients(self.parameters(), gradient_clip_val)

    def validation_step(self, batch: Bundle, batch_idx: int) -> None:
        """Does nothing: the Evaluation callback answers the batch, here as in fit."""

    test_step = validation_step
    predict_step = validation_step

    def save_weights(self, run: Path) -> None:
        """Writes the trained weights into a run folder: ``adapter/``, or ``model/`` without LoRA.

        All processes call this, the first one writes.
        """
        if self.mllm.adapted:
            with self._replacing(run / names.ADAPTER) as folder:
                self.mllm.save_adapter(folder, self.trainer.is_global_zero)
        else:
            with self._replacing(run / names.MODEL) as folder:
                self.mllm.save(folder, self.trainer.is_global_zero)

    def _replacing(self, folder: Path) -> AbstractContextManager[Path]:
        return replacing_folder(folder) if self.trainer.is_global_zero else nullcontext(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only what is trained."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["report"] = self.report
        checkpoint["optimizer"] = type(self.trainer.optimizers[0]).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint holds exactly what is trained.

        Raises:
            UserError: if a weight is missing, unexpected or of another shape.
        """
        check_names(checkpoint, {n: p for n, p in self.named_parameters() if p.requires_grad})
        self.report = checkpoint.get("report", {})
        self._saved_by = checkpoint.get("optimizer", "AdamW")
        set_rates(checkpoint, self.lr, self.weight_decay)
        if self.trainer.state.fn == TrainerFn.FITTING and "loops" in checkpoint:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            data.steps_done = checkpoint["global_step"]
            count_epochs(checkpoint, epoch_steps(len(data.train_dataloader()), self.trainer.limit_train_batches))
