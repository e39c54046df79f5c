"""What fine-tuning and unlearning share: loading, a training step up to the optimizer's, small checkpoints."""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from viker_lightning.data.datasets.base import Benchmark
from viker_lightning.data.records import Labels
from viker_lightning.data.sampling import Bundle, epoch_steps
from viker_lightning.errors import UserError, check_least
from viker_lightning.models import MLLM, Lora, Weights, check_first_gradients, revision_of, write_merged
from viker_lightning.models.dtensor import local_part
from viker_lightning.storage.files import replacing_folder
from viker_lightning.storage.runs import names
from viker_lightning.storage.runs.resume import check_names, check_optimizer, count_epochs, set_rates

from . import published
from .distributed import Processes, join
from .engine import Engine
from .optimizer import optimizer_of, schedule_of, warn_of_small_steps
from .state import RunReport, StepState
from .step import Groups, Terms, Totals, take_step

POINTS = 20
"""How many points a curve has at least; short runs log more often than the trainer says."""

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

    stages: tuple[str, ...] = ()  # values of data.stage it is for
    whole_steps = False  # whether a step must pass the model at once
    in_passes = False  # whether streams take turns, a whole pass each
    deepest: int | None = None  # the last decoder layer whose hidden states the loss reads, if it reads no words

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
        self.weights = Weights()
        self.authors: published.Published | None = None
        self.labels = Labels.ANSWER
        self.processes = Processes()
        self.step = StepState()
        self.report = RunReport()
        self.lora: Lora | None = None
        self._looks = LOOKS
        self._saved_by = "AdamW"  # which optimizer the state of a resumed run is of
        self.strict_loading = False  # checkpoints hold trained weights only; on_load_checkpoint checks them

    @property
    def data(self) -> Benchmark:
        """The data of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def load_mllm(self) -> MLLM:
        """Builds the model of this stage; called once the data is known."""
        raise NotImplementedError

    def choose_trained(self, mllm: MLLM) -> None:
        """Says which weights of a model are trained: of one that is loaded, or of its names and shapes alone."""

    @override
    def setup(self, stage: str) -> None:
        """Notes what the benchmark's authors do otherwise, and which tokens count in the loss."""
        self.authors = published.authors_of(self.data)
        self.labels = self.authors.labels if self.authors else Labels.ANSWER
        if stage == "fit":
            self.prepare_steps()

    def prepare_steps(self) -> None:
        """Takes accumulated batches as one step: same memory, and means are over all of it."""
        self.data.prepare_steps(self.trainer.accumulate_grad_batches, self.in_passes)
        self.trainer.accumulate_grad_batches = 1

    @override
    def configure_model(self) -> None:
        """Loads the model when the trainer asks for it; an error if the data serves another stage."""
        data, fitting = self.data, self.trainer.state.fn == TrainerFn.FITTING
        if fitting and data.stage not in self.stages:
            raise UserError(
                f"data.stage: found {data.stage!r}, but {type(self).__name__} needs {' or '.join(self.stages)}; set it"
            )
        if hasattr(self, "mllm"):
            return
        mllm = self.load_mllm()
        self.take_model(mllm)
        if self.engine.gradient_checkpointing:
            mllm.checkpoint_gradients()
        self.processes = join(mllm, self.trainer)

    def take_model(self, mllm: MLLM) -> None:
        """Makes a model, with or without its weights, that of this stage: its budgets, its text, and what it may read.

        It is an error if the authors' text cannot be put to it, or a text of the data is too long.
        """
        self.mllm = mllm
        mllm.set_budgets(self.engine.max_sequence_tokens, self.engine.max_tokens)
        mllm.vision.keep = self.engine.features
        if self.authors is not None:
            placeholders = mllm.image_positions if self.authors.placeholders else 0
            mllm.use_template(self.authors.template(mllm.encoder.template), placeholders)
        if self.trainer.state.fn == TrainerFn.FITTING:
            for text in self.data.texts():  # now, and not where training meets it
                mllm.encoder.check(text)

    @override
    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps adapters in fp32 whatever the model is cast to, before DDP looks at their types."""
        super().to(*args, **kwargs)
        if hasattr(self, "mllm") and self.mllm.adapted:
            self.mllm._apply(lambda p: p.float() if p.requires_grad else p)  # sharded weights cannot be set one by one
        return self

    @override
    def configure_optimizers(self) -> Any:
        """The optimizer of what is trainable; adapters stay in fp32, since small steps vanish in bf16."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        warn_of_small_steps(trainable)
        optimizer = optimizer_of(self.optimizer, trainable, self.lr, self.weight_decay)
        kind = type(optimizer).__name__
        optimizer.register_load_state_dict_pre_hook(lambda *_: check_optimizer(self._saved_by, kind))
        steps = self.trainer.estimated_stepping_batches
        scheduler = schedule_of(self.schedule, optimizer, self.warmup_steps, steps)
        most = max(1, int(min(steps, sys.maxsize)) // POINTS)
        self.trainer.log_every_n_steps = min(self.trainer.log_every_n_steps, most)  # type: ignore[attr-defined]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @override
    def training_step(self, batch: Bundle, batch_idx: int) -> Tensor:
        """Loss and gradient of a step, in as many parts as the token budget asks for.

        The graph of all parts but the last is gone when this returns; their gradients are there already. A process
        group therefore averages once, at the last part.
        """
        groups = self.step_questions(batch.content, self.global_step)
        questions = {name: sum(len(group.vqa) for group in found) for name, found in groups.items()}
        shows_image = any(group.image is not None for some in groups.values() for group in some)
        self.step = StepState(sum(questions.values()), shows_image)
        backward = partial(self.trainer.strategy.backward, optimizer=None)
        loss, terms = take_step(
            self.mllm, groups, self.loss_terms, backward, self.processes, self.most_questions, self.whole_steps
        )
        if not torch.isfinite(terms["loss"]):
            self.step.broken = f"the loss is {terms['loss'].item()}"
        self.step.logged = self.logged(terms)
        for name, value in self.step.logged.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=next(iter(questions.values())))
        return loss

    @override
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Does nothing: this is called between the parts of a step, whose gradients belong together."""

    @override
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Makes the gradients of all processes one, and makes sure, once, that they reach all that is trained."""
        self.processes.combine_gradients(self.step.shows_image, self.deepest)
        if self._looks:  # a projector can never be judged where no question has an image
            scaled = str(self.trainer.precision).startswith("16")
            judged = check_first_gradients(self.mllm, not scaled, self.step.shows_image, self.deepest)
            self._looks = 0 if judged else self._looks - 1

    @override
    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        self._look_at_gradient()
        most = gradient_clip_val if gradient_clip_algorithm != "value" else None
        if not (most and self.processes.clip_gradients(self.parameters(), most)):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _look_at_gradient(self) -> None:
        """Notes a gradient that is not finite, as methods have left it, unless a scaler does that (fp16)."""
        if self.trainer.precision == "16-mixed" or self.step.broken:
            return
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        total = torch.stack(torch._foreach_norm([local_part(g) for g in gradients])).sum()
        if self.trainer.world_size > 1:  # each may hold a part of the weights
            torch.distributed.all_reduce(total)
        if not torch.isfinite(total):
            self.step.broken = f"the norm of the gradient is {total.item()}"

    @override
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()
        self.mllm.mark_trained()

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops at what is broken, unless a callback has fixed it; the error says which number it was."""
        if self.step.broken:
            raise UserError(
                f"step {self.global_step}: {self.step.broken}, and no later adapter was good; lower model.lr or the "
                f"weights of the loss (last checkpoint: {Path(self.trainer.default_root_dir) / names.CHECKPOINTS})"
            )

    @property
    def most_questions(self) -> int | None:
        """Most questions of a stream in a part of a step: accumulated batches pass one after the other."""
        return self.data.batch_size if self.data.batches_per_step > 1 else None

    def step_questions(self, content: Groups, step: int) -> Groups:
        """All that a step asks, with questions and labels as published if the data's protocol is.

        Args:
            content: image groups as the data serves them, by stream.
            step: its number.
        """
        streams = self.streams(content, step)
        if self.authors is None:
            return streams
        reword, labels, seed = self.authors.training_group, self.labels, f"{self.data.seed}/{step}"
        return {name: [reword(group, labels, seed) for group in groups] for name, groups in streams.items()}

    def streams(self, content: Groups, step: int) -> Groups:
        """The image groups of a step that the loss uses, with the answers it uses; see :meth:`step_questions`."""
        return content

    def loss_terms(self, groups: Groups, totals: Totals) -> Terms:
        """What a part of a step adds to its loss, and to whatever else is logged.

        Args:
            groups: image groups by stream, possibly none.
            totals: tokens and questions of the whole step by stream.
        """
        raise NotImplementedError

    def logged(self, terms: Terms) -> Terms:
        """Turns the summed terms of a step into the values that are logged."""
        return terms

    @override
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

    def write_merged(self, run: Path, name: str) -> None:
        """Writes a folder of full weights in float32, with ``adapter/`` added, into a run folder; one process does."""
        if self.trainer.is_global_zero:
            revision = revision_of(self.base_weights, self.mllm.commit, self.weights.revision)
            weights = replace(self.weights, dtype="float32", revision=revision)
            write_merged(run / names.ADAPTER, run / name, weights, self.base_weights)

    def _replacing(self, folder: Path) -> AbstractContextManager[Path]:
        return replacing_folder(folder) if self.trainer.is_global_zero else nullcontext(folder)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["report"] = self.report.to_dict()
        checkpoint["optimizer"] = type(self.trainer.optimizers[0]).__name__

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint holds exactly what is trained, each weight in its shape."""
        check_names(checkpoint, {n: p for n, p in self.named_parameters() if p.requires_grad})
        self.report = RunReport.from_checkpoint(checkpoint.get("report", {}))
        self._saved_by = checkpoint.get("optimizer", "AdamW")
        set_rates(checkpoint, self.lr, self.weight_decay)
        if self.trainer.state.fn == TrainerFn.FITTING and "loops" in checkpoint:
            self.data.skip_steps(checkpoint["global_step"])
            count_epochs(checkpoint, epoch_steps(len(self.data.train_dataloader()), self.trainer.limit_train_batches))
