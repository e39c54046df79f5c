"""What a run was made of: provenance.json, and the whole config to W&B."""

from __future__ import annotations

import inspect
import json
import logging
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from viker_lightning.files import replacing_folder, write_json, write_text
from viker_lightning.hub import commit_of
from viker_lightning.models import folder_fingerprint, origin
from viker_lightning.runs import names
from viker_lightning.runs.names import weights_folder
from viker_lightning.secrets import hide, hide_in, hide_quoted
from viker_lightning.sources import code_fingerprint, fingerprint, source_files

from .audit import SimilarityAudit
from .evaluation import Evaluation

log = logging.getLogger(__name__)

PACKAGES = (
    "viker-lightning",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "jsonargparse",
    "omegaconf",
    "torchmetrics",
)


class SaveConfig(SaveConfigCallback):
    """Writes the resolved config to ``<run>/config.yaml`` and sends it to W&B, without tokens and passwords."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Called once, on the first process."""
        run = Path(trainer.default_root_dir)
        run.mkdir(parents=True, exist_ok=True)
        name = names.of_command(names.CONFIG, TrainerFn(stage).value)
        config = hide_in(yaml.safe_load(self.parser.dump(self.config, skip_unset=False)))
        write_text(run / name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(config, allow_val_change=True)


class Provenance(Callback):
    """Writes ``<run>/provenance.json`` when training starts, and adds the peak of GPU memory when it has ended.

    A method that is not this package's is copied into ``<run>/method/``, with what it imports from beside it.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Records versions, commit, seed, threads, data, method, weights, and batch (a stream's questions in a step).

        Of unlearning with irrelevant images, also which ones, and the seed they were chosen with.
        """
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        trained = [name for name, p in pl_module.named_parameters() if p.requires_grad]
        lora, method = getattr(pl_module, "lora", None), getattr(pl_module, "method", None)
        template = pl_module.mllm.encoder.template
        run = Path(trainer.default_root_dir)
        source = keep_source(method, run) if method else None
        record = {
            "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
            "git_commit": git_commit(run),
            "code": code_fingerprint(),
            "earlier_sources": earlier_sources(trainer.ckpt_path, source),
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
            },
            "protocol": data.protocol,
            "labels": str(pl_module.labels),
            "private_parts": "recorded" if data.records_private else "inferred from the answers' shared words",
            "base_weights": pl_module.base_weights,
            "quantize": pl_module.quantize,
            "base_revision": pl_module.revision,
            "base_commit": pl_module.mllm.commit,
            "base_fingerprint": folder_fingerprint(weights_folder(pl_module.base_weights)),
            "other_weights": other_weights(trainer, pl_module),
            "dtype": pl_module.weights_dtype,
            "prompt": template.image_prefix + template.question,
            "method": {"name": type(method).__name__} | settings(method) if method else None,
            "irrelevant_images": drawn(pl_module) if getattr(pl_module, "pictures", None) else None,
            "method_source": source,
            "training": {"name": type(trainer.optimizers[0]).__name__}
            | settings(pl_module, ("lr", "weight_decay", "warmup_steps", "schedule")),
            "trust_remote_code": pl_module.trust_remote_code,
            "selection": selection_of(trainer),
            "adapter": vars(lora) if lora else None,
            "trained_parameters": sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
            "trained_weights": len(trained),
        }
        write_json(run / names.PROVENANCE, hide_in(record))

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Adds the most memory that tensors took on a GPU, in bytes, of all processes since this one started."""
        device = trainer.strategy.root_device
        if device.type != "cuda":
            return
        peak = torch.tensor(torch.cuda.max_memory_allocated(device), device=device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
        file = Path(trainer.default_root_dir) / names.PROVENANCE
        if trainer.is_global_zero and file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            write_json(file, record | {"peak_gpu_memory_bytes": int(peak)})


def settings(thing: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Plain values of an object: by default those of its class's arguments."""
    wanted = names or inspect.signature(type(thing)).parameters
    found = {name: getattr(thing, name, None) for name in wanted}
    return {name: v for name, v in found.items() if isinstance(v, int | float | str)}


def drawn(pl_module: Any) -> dict[str, Any]:
    """Which irrelevant images the ideal distribution is of, and the seed they were chosen with."""
    images = [{"source": picture.source, "key": picture.key} for picture in pl_module.pictures]
    return {"kind": pl_module.method.images, "k": len(images), "seed": pl_module.drawn_with, "images": images}


def distinct(ids: Iterable[str]) -> int:
    """How many people there are; one with several photos has an ID for each, ``name #1`` and so on."""
    return len({re.sub(r" (#\d+|\(text\))$", "", one) for one in ids})


def other_weights(trainer: Any, pl_module: Any) -> dict[str, dict[str, str | None]]:
    """Which weights a run uses besides those it trains, by the option that names them."""
    found = {"model.clip": getattr(pl_module, "clip_weights", None)}
    if adapter := getattr(pl_module, "adapter", None):
        found["model.adapter"] = origin(adapter, Path(adapter))
    if gold := getattr(getattr(pl_module, "method", None), "gold", None):
        found["model.method.gold"] = origin(gold)
    for callback in trainer.callbacks:
        if isinstance(callback, SimilarityAudit):
            found["audit.clip"] = callback.weights
        elif isinstance(callback, Evaluation):
            found |= callback.other_weights
    return {option: weights for option, weights in found.items() if weights}


def selection_of(trainer: Any) -> dict[str, Any] | None:
    """The rule that chooses the adapter a run ends with; ``None`` if nothing is evaluated."""
    return next((vars(c.selection) for c in trainer.callbacks if isinstance(c, Evaluation)), None)


def keep_source(method: Any, run: Path) -> dict[str, str | None]:
    """Copies a method's files into the run folder, unless they are this package's; without tokens and passwords.

    Args:
        method: the method.
        run: the folder.

    Returns:
        ``module``, ``file`` and ``hash``: of the files copied, ``None`` if there are none.
    """
    kind = type(method)
    files = source_files(f"{kind.__module__}.{kind.__qualname__}")
    if files:
        with replacing_folder(run / names.SOURCE) as folder:
            for name, file in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                text = file.read_text(encoding="utf-8", errors="replace")
                (folder / name).write_text(hide(hide_quoted(text)), encoding="utf-8")
    stands_in = inspect.getsourcefile(kind)
    return {"module": kind.__module__, "file": stands_in, "hash": fingerprint(files) if files else None}


def earlier_sources(checkpoint: Any, source: dict[str, str | None] | None) -> list[dict[str, Any]]:
    """What other code took the steps that a run goes on from, oldest first; says in one line if there was any.

    Args:
        checkpoint: file the run starts from, if any; its run folder has a record.
        source: of this run's method, as :func:`keep_source` gives it; ``None`` if it has none.
    """
    if not checkpoint:
        return []
    try:
        before = json.loads((Path(checkpoint).parent.parent / names.PROVENANCE).read_text(encoding="utf-8"))
        then = {"code": before["code"], "method": (before["method_source"] or {}).get("hash")}
        found: list[dict[str, Any]] = before["earlier_sources"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):  # of no run of ours
        return []
    source = source or {}
    if then == {"code": code_fingerprint(), "method": source.get("hash")}:
        return found
    changed = "this program" if then["code"] != code_fingerprint() else f"the source of {source.get('module')}"
    log.warning(
        "%s has changed since the steps before %s were taken, so that this run is made of both (earlier_sources in "
        "provenance.json); leave --ckpt_path out to train anew",
        *(changed, checkpoint),
    )
    return [*found, then]


def git_commit(run: Path | None = None) -> str | None:
    """The commit of the working folder, with ``+`` if files differ or are new; ``None`` outside a repository.

    Args:
        run: folder of the run. What is in it, in any other run folder, or ignored by git makes no difference.
    """

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout

    try:
        commit, top = git("rev-parse", "HEAD", "--show-toplevel").splitlines()
        changed = bool(git("status", "--porcelain", "--untracked-files=no").strip())
        new = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", top).split("\0")[:-1]
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    runs = {Path(run).resolve()} if run else set()
    files = [Path(top, name) for name in new]
    runs |= {file.parent for file in files if file.name == names.PROVENANCE}
    changed = changed or any(not runs & {file, *file.parents} for file in files)
    return commit + ("+" if changed else "")
