"""provenance.json, and the whole config to the run folder and to W&B."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from viker_lightning.data.records import person_name
from viker_lightning.methods import Method, nested
from viker_lightning.models import folder_fingerprint, identify_weights
from viker_lightning.storage.files import write_json, write_text
from viker_lightning.storage.hub import commit_of
from viker_lightning.storage.runs import names, weights_folder
from viker_lightning.storage.runs.provenance import keep_source, note_peak_memory, program, settings
from viker_lightning.storage.secrets import hide_in
from viker_lightning.training import Unlearn
from viker_lightning.training.base import Stage

from .evaluation import Evaluation
from .similarity_audit import SimilarityAudit
from .trainer_parts import callbacks_of, data_of, run_folder


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config to ``<run>/config.yaml`` and sends it to W&B, without tokens and passwords."""

    @override
    def save_config(self, trainer: Trainer, pl_module: Stage, stage: str) -> None:
        run = run_folder(trainer)
        run.mkdir(parents=True, exist_ok=True)
        config = hide_in(yaml.safe_load(self.parser.dump(self.config, skip_unset=False)))
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_text(run / names.of_command(names.CONFIG, TrainerFn(stage).value), text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(config, allow_val_change=True)


class Provenance(Callback):
    """Writes ``<run>/provenance.json`` when training starts, and adds the peak of GPU memory when it has ended.

    That is versions, commit, seed, threads, data, method, weights, and batch (a stream's questions in a step); of
    unlearning with irrelevant images, also which ones, and the seed they were chosen with. A method that is not this
    package's is copied into ``<run>/method/``, with what it imports from beside it.
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        if not trainer.is_global_zero:
            return
        run, data = run_folder(trainer), data_of(trainer)
        source = keep_source(nested(pl_module.method), run) if isinstance(pl_module, Unlearn) else None
        record = {
            **program(run, trainer.ckpt_path, source),
            "seed": torch.initial_seed(),
            "device": str(pl_module.device),
            "world_size": trainer.world_size,
            "threads": torch.get_num_threads(),
            "batch": {
                "per_process": data.batch_size,
                "accumulated": data.batches_per_step,
                "processes": trainer.world_size,
                "effective": data.batch_size * data.batches_per_step * trainer.world_size,
            },
            "data": {
                "root": data.root,
                "revision": data.revision,
                "commit": commit_of(data.folder),
                "fingerprint": data.fingerprint(),
                "forget": data.forget,
                "stage": data.stage,
                "people": {"forget": distinct(data.forget_ids), "retain": distinct(data.retain_ids)},
                **({"requests": data.requests} if data.stage == "unlearn" else {}),
            },
            "protocol": data.protocol,
            "labels": str(pl_module.labels),
            "private_parts": "recorded" if data.records_private else "inferred from the answers' shared words",
            "base_weights": pl_module.base_weights,
            "quantize": pl_module.weights.quantize,
            "base_revision": pl_module.weights.revision,
            "base_commit": pl_module.mllm.commit,
            "base_fingerprint": folder_fingerprint(weights_folder(pl_module.base_weights)),
            "other_weights": other_weights(trainer, pl_module),
            "method_source": source,
            **training_facts(trainer, pl_module),
        }
        write_json(run / names.PROVENANCE, hide_in(record))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        """Adds the most memory that tensors took on a GPU, in bytes, of all processes since this one started."""
        device = trainer.strategy.root_device
        if device.type != "cuda":
            return
        peak = torch.tensor(torch.cuda.max_memory_allocated(device), device=device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
        if trainer.is_global_zero:
            note_peak_memory(run_folder(trainer), int(peak))


def distinct(ids: Iterable[str]) -> int:
    """How many people there are."""
    return len({person_name(one) for one in ids})


def other_weights(trainer: Trainer, stage: Stage) -> dict[str, dict[str, str | None]]:
    """Which weights a run uses besides those it trains, by the option that names them."""
    found: dict[str, dict[str, str | None] | None] = {}
    if isinstance(stage, Unlearn):
        found["model.clip"] = stage.clip_weights
        if stage.adapter:
            found["model.adapter"] = identify_weights(stage.adapter, Path(stage.adapter))
        if gold := stage.method.references.get("gold"):
            found["model.method.gold"] = identify_weights(gold.folder)
    for audit in callbacks_of(trainer, SimilarityAudit):
        found["audit.clip"] = audit.weights
    for evaluation in callbacks_of(trainer, Evaluation):
        found |= evaluation.other_weights
    return {option: weights for option, weights in found.items() if weights}


def training_facts(trainer: Trainer, stage: Stage) -> dict[str, Any]:
    """How they are trained: prompt, method, optimizer, adapter."""
    template = stage.mllm.encoder.template
    unlearning = stage if isinstance(stage, Unlearn) else None
    trained = [p for p in stage.parameters() if p.requires_grad]
    optimizer = {"name": type(trainer.optimizers[0]).__name__}
    return {
        "dtype": stage.weights.dtype,
        "prompt": template.image_prefix + template.question,
        "method": method_facts(unlearning.method) if unlearning else None,
        **(pictures_shown(unlearning) if unlearning else dict.fromkeys(("irrelevant_images", "strangers"))),
        "training": optimizer | settings(stage, ("lr", "weight_decay", "warmup_steps", "schedule")),
        "trust_remote_code": stage.weights.trust_remote_code,
        "selection": next((vars(c.selection) for c in callbacks_of(trainer, Evaluation)), None),
        "adapter": vars(stage.lora) if stage.lora else None,
        "trained_parameters": sum(p.numel() for p in trained),
        "trained_weights": len(trained),
    }


def method_facts(method: Method) -> dict[str, Any]:
    """Class and settings of a method, and of one inside it."""
    outer, *inside = [{"name": type(one).__name__} | settings(one) for one in nested(method)]
    return outer | ({"inside": inside} if inside else {})


def pictures_shown(stage: Unlearn) -> dict[str, Any]:
    """Which irrelevant images the ideal distribution is of, which strangers are shown, and the seed of the choice."""
    shown = {
        "irrelevant_images": ("irrelevant", stage.pictures),
        "strangers": ("strangers", stage.strangers),
        "doubles": ("double", stage.drawn_doubles),
    }
    return {
        name: {
            "kind": stage.method.pictures_needed[use][0],
            "k": len(pictures),
            "seed": stage.drawn_with,
            "images": [{"source": picture.source, "key": picture.key} for picture in pictures],
        }
        if pictures
        else None
        for name, (use, pictures) in shown.items()
    }
