"""Tensors in safetensors files that are there whole or not at all, with a checksum."""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from viker_lightning.storage.files import draft, raise_named

CHECKSUM = "sha256"
"""Under which name a file's metadata has the checksum of its tensors."""


def save_atomically(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes a safetensors file that is there whole or not at all, whoever else writes it at the same time.

    A checksum of the tensors stands in its metadata.
    """
    try:
        with draft(file.parent, file.stem) as folder:
            save_file(tensors, folder / file.name, {CHECKSUM: checksum(tensors)})
            os.replace(folder / file.name, file)
    except BaseException as error:
        raise_named(error, file)


class Damaged(Exception):
    """A file is not what was written; says why."""


def load_checked(file: Path) -> dict[str, Tensor]:
    """Reads what :func:`save_atomically` wrote; :class:`Damaged` is raised if it is something else."""
    try:
        with safe_open(file, framework="pt") as opened:
            noted = (opened.metadata() or {}).get(CHECKSUM)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged((str(error).strip() or type(error).__name__).splitlines()[0]) from error
    if noted is None:
        raise Damaged("it has no checksum")
    if noted != checksum(tensors):
        raise Damaged("its checksum is another")
    return tensors


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
