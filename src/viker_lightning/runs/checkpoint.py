"""The checkpoint file: safetensors through and through, so that reading one runs no code, and written whole."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from viker_lightning.errors import UserError
from viker_lightning.files import replacing

STRUCTURE = "checkpoint"
"""Key of the file's metadata under which everything that is not a tensor stands, as JSON."""


KEPT: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "global_step": int,
    "epoch": int,
    "loops": dict,
    "optimizer_states": (list, tuple),
    "lr_schedulers": (list, tuple),
    "pytorch-lightning_version": str,
}
"""What the checkpoint of every run holds."""


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint as one safetensors file and reads it, or one that ``torch.save`` wrote.

    Tensors stand under their place in the checkpoint (``state_dict.<weight>``, ``optimizer_states.0.state.3.exp_avg``),
    the rest as JSON in the metadata. A checkpoint is there whole or not at all; the former one stays until then.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: if the disk is full or may not be written.
            TypeError: if something in it is neither a tensor nor plain data, naming its place.
        """
        tensors: dict[str, Tensor] = {}
        structure = json.dumps(_plain(checkpoint, "", tensors))
        with replacing(Path(path)) as file:
            save_file(tensors, file, {STRUCTURE: structure})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint, its tensors on the CPU.

        Nothing but tensors and plain values is ever read, whatever ``weights_only`` says.

        Raises:
            UserError: if it is no checkpoint of a run, or could run code.
        """
        try:
            with Path(path).open("rb") as file:
                zipped = file.read(4) == b"PK\3\4"  # torch.save writes a zip archive
            if zipped:
                found = super().load_checkpoint(path, lambda storage, _: storage, weights_only=True)
            else:
                with safe_open(path, framework="pt") as opened:
                    structure = (opened.metadata() or {})[STRUCTURE]
                    tensors = {name: opened.get_tensor(name) for name in opened.keys()}
                found = _restored(json.loads(structure), tensors)
        except UnpicklingError as error:
            raise UserError(
                f"ckpt_path: {path} holds more than tensors and plain values; opening it could run code, so it was not "
                "opened; give a checkpoint that this program wrote"
            ) from error
        except Exception as error:  # a foreign file can be anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"ckpt_path: {path} is no readable checkpoint ({reason}); give another, or start afresh"
            ) from error
        odd = [n for n, kind in KEPT.items() if not isinstance(found, dict) or not isinstance(found.get(n), kind)]
        if odd:
            raise UserError(
                f"ckpt_path: {path} is no checkpoint of a run (no {odd[0]} in it); give checkpoints/last.ckpt of one, "
                "or start afresh"
            )
        return found


def _plain(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold; tensors are collected and stand for by their names."""
    if isinstance(value, Tensor):
        tensors[place] = value.detach().cpu().contiguous()
        return {"tensor": place}
    if isinstance(value, dict):
        items = [[_plain(k, place, tensors), _plain(v, f"{place}.{k}".strip("."), tensors)] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        items = [_plain(v, f"{place}.{i}", tensors) for i, v in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"checkpoint: {place} is a {type(value).__name__}; only tensors and plain data can be kept")


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_restored(v, tensors) for v in content)
    return {_restored(k, tensors): _restored(v, tensors) for k, v in content}


def rng_state() -> dict[str, Any]:
    """States of this process's random number generators: Python, NumPy, torch, and the current GPU."""
    kind, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts them back."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def obey(checkpoint: dict[str, Any], lr: float, weight_decay: float) -> None:
    """Puts this run's learning rate and weight decay into a checkpoint."""
    for optimizer in checkpoint.get("optimizer_states", []):
        for group in optimizer["param_groups"]:
            if "weight_decay" in group:
                group["weight_decay"] = weight_decay
            if group["initial_lr"] != lr:
                group |= {"lr": group["lr"] * lr / group["initial_lr"], "initial_lr": lr}
    for scheduler in checkpoint.get("lr_schedulers", []):
        scheduler["base_lrs"] = [lr] * len(scheduler["base_lrs"])


def count_epochs(checkpoint: dict[str, Any], steps: int) -> None:
    """Counts the epochs of a checkpoint from the steps taken.

    Lightning's own counters are one short in a run that was resumed at the end of an epoch, so that a second resumption
    at such a point would take an epoch again.

    Args:
        checkpoint: of any moment; one that was not saved at the end of a step is left alone.
        steps: of an epoch.
    """
    loop = checkpoint["loops"]["fit_loop"]
    batches = loop["epoch_loop.batch_progress"]["total"]
    if checkpoint["global_step"] > 0 and batches["completed"] == batches["processed"] - 1:
        done = (checkpoint["global_step"] - 1) // steps  # the epoch of the newest step is left for Lightning to end
        for counts in loop["epoch_progress"].values():
            counts |= {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}


def check_optimizer(saved: str, found: str) -> None:
    """Makes sure that a run goes on with the kind of optimizer whose state it was left with.

    Raises:
        UserError: if it does not.
    """
    if saved != found:
        raise UserError(
            f"ckpt_path: the checkpoint has the state of {saved}, but this run's optimizer is {found}; set "
            "model.optimizer to what the run began with, or start afresh"
        )


def check_names(checkpoint: dict[str, Any], trained: Mapping[str, Tensor]) -> None:
    """Makes sure that a checkpoint holds exactly what is trained.

    Raises:
        UserError: if a weight is missing, unexpected or of another shape.
    """
    state, names = checkpoint["state_dict"], set(trained)
    if names != set(state):
        saved = set(state)
        odd = sorted(names ^ saved, key=str)[0]
        raise UserError(
            f"checkpoint: {len(names - saved)} trained weights are missing, {len(saved - names)} unexpected, "
            f"e.g. {odd!r}; it belongs to another model or LoRA setting"
        )
    for name, weight in trained.items():
        if getattr(state[name], "shape", None) != weight.shape:
            found = list(getattr(state[name], "shape", ()))
            raise UserError(
                f"checkpoint: {name} has shape {found}, expected {list(weight.shape)}; it belongs to another model or "
                "LoRA setting"
            )
