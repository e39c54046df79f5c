"""What fine-tuning and unlearning share: loading, optimizer, packing, small checkpoints, evaluation steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from transformers import get_scheduler

from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM

Groups = dict[str, list[ImageGroup]]


class Stage(LightningModule):
    """A training stage of a multimodal LLM.

    Hyper-parameters are kept out of checkpoints on purpose, so that a resumed run obeys its config and command line.

    Args:
        lr: AdamW learning rate.
        weight_decay: of AdamW.
        warmup_steps: linear warm-up.
        schedule: learning rate after the warm-up: ``constant``, or ``cosine`` down to 3 % at the last step.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Literal["constant", "cosine"] = "constant",
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.warmup_steps, self.schedule = lr, weight_decay, warmup_steps, schedule
        self.mllm: MLLM
        self.base_weights = ""
        self.report: dict[str, Any] = {}  # what else belongs into results.json
        self.strict_loading = False  # checkpoints hold trained weights only; on_load_checkpoint checks them

    def load_mllm(self) -> MLLM:
        """Builds the model of this stage; called once the data is known."""
        raise NotImplementedError

    stages: tuple[str, ...] = ()

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
            self.mllm = self.load_mllm()

    def configure_optimizers(self) -> Any:
        """AdamW on what is trainable."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=self.lr, weight_decay=self.weight_decay)
        name = {"constant": "constant_with_warmup", "cosine": "cosine_with_min_lr"}[self.schedule]
        scheduler = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=self.warmup_steps,
            num_training_steps=int(self.trainer.estimated_stepping_batches),
            scheduler_specific_kwargs={"min_lr_rate": 0.03} if self.schedule == "cosine" else None,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves image groups alone: they are packed when they are used."""
        return batch

    def log_step(self, values: dict[str, Tensor], questions: int) -> Tensor:
        """Logs the values of a step and hands back its loss.

        Raises:
            UserError: if the loss is not finite.
        """
        loss = values["loss"]
        if not torch.isfinite(loss):
            raise UserError(
                f"step {self.global_step}: the loss is {loss.item()}; lower model.lr or the weights of the loss "
                f"(last checkpoint: {Path(self.trainer.default_root_dir) / 'checkpoints'})"
            )
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=questions)
        rest = {f"train/{name}": value.detach() for name, value in values.items() if name != "loss"}
        self.log_dict(rest, batch_size=questions)
        return loss

    def validation_step(self, batch: list[ImageGroup], batch_idx: int) -> None:
        """Does nothing: the Evaluation callback answers the batch, here as in fit."""

    test_step = validation_step
    predict_step = validation_step

    def save_weights(self, run: Path) -> None:
        """Writes the trained weights into a run folder: ``adapter/``, or ``model/`` without LoRA."""
        if self.mllm.adapted:
            self.mllm.save_adapter(run / "adapter")
        else:
            self.mllm.save(run / "model")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only what is trained."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["report"] = self.report

    def _obey(self, checkpoint: dict[str, Any]) -> None:
        """Keeps this run's learning rate and weight decay, and tells the data how far the epoch had come."""
        for optimizer in checkpoint.get("optimizer_states", []):
            for group in optimizer["param_groups"]:
                group |= {"lr": group["lr"] * self.lr / group["initial_lr"], "weight_decay": self.weight_decay}
                group["initial_lr"] = self.lr
        for scheduler in checkpoint.get("lr_schedulers", []):
            scheduler["base_lrs"] = [self.lr] * len(scheduler["base_lrs"])
        if "loops" in checkpoint:
            loop = checkpoint["loops"]["fit_loop"]
            epochs = loop["epoch_progress"]["current"]
            if epochs["processed"] < epochs["ready"]:  # saved in the middle of an epoch, which is gone on with
                steps = loop["epoch_loop.batch_progress"]["current"]["processed"]
                self.trainer.datamodule.steps_done = steps  # type: ignore[attr-defined]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint holds exactly what is trained.

        Raises:
            UserError: if a weight is missing or unexpected.
        """
        self.report = checkpoint.get("report", {})
        self._obey(checkpoint)
        trained, saved = {n for n, p in self.named_parameters() if p.requires_grad}, set(checkpoint["state_dict"])
        if trained != saved:
            odd = sorted(trained ^ saved)[0]
            raise UserError(
                f"checkpoint: {len(trained - saved)} trained weights are missing, {len(saved - trained)} unexpected, "
                f"e.g. {odd!r}; it belongs to another model or LoRA setting"
            )
