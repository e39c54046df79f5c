"""The checkpoint file: safetensors through and through, so that reading one runs no code, and written whole."""

import json
import random
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import override

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing

STRUCTURE = "checkpoint"
"""Key of the file's metadata under which everything that is not a tensor stands, as JSON."""

EXPECTED: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "global_step": int,
    "epoch": int,
    "loops": dict,
    "optimizer_states": (list, tuple),
    "lr_schedulers": (list, tuple),
    "pytorch-lightning_version": str,
}
"""What the checkpoint of every run holds, by its type."""


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint as one safetensors file and reads it, or one that ``torch.save`` wrote.

    Tensors stand under their place in the checkpoint (``state_dict.<weight>``, ``optimizer_states.0.state.3.exp_avg``),
    the rest as JSON in the metadata. A checkpoint is there whole or not at all; the former one stays until then.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint; an error names the place of what is neither a tensor nor plain data."""
        tensors: dict[str, Tensor] = {}
        structure = json.dumps(_plain(checkpoint, "", tensors))
        with replacing(Path(path)) as file:
            save_file(tensors, file, {STRUCTURE: structure})

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint, its tensors on the CPU.

        Nothing but tensors and plain values is ever read, whatever ``weights_only`` says.
        """
        try:
            with Path(path).open("rb") as file:
                zipped = file.read(4) == b"PK\3\4"  # torch.save writes a zip archive
            if zipped:
                found = super().load_checkpoint(path, lambda storage, _: storage, weights_only=True)
            else:
                with safe_open(path, framework="pt") as opened:
                    structure = (opened.metadata() or {}).get(STRUCTURE)
                    if structure is None:
                        raise ValueError("it holds weights alone, as an adapter does")
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
        odd = [n for n, kind in EXPECTED.items() if not isinstance(found, dict) or not isinstance(found.get(n), kind)]
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
    """Sets the random generators of Python, NumPy and PyTorch to what :func:`rng_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
