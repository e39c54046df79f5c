"""Features of frozen vision modules: computed once for each distinct picture, kept where the user wants them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from viker_lightning.data.records import Picture
from viker_lightning.files import hold, remove_drafts, replacing_shared

from .lru import Kept

log = logging.getLogger(__name__)

Keep = Literal["memory", "disk", "off"]

MEMORY_LIMIT = 8 * 2**30
"""Bytes of features kept in memory; beyond it the ones longest unused go."""

CHECKSUM = "sha256"
"""Under which name a file's metadata has the checksum of its tensors."""


class FrozenFeatures:
    """Remembers features by picture.

    Args:
        keep: ``memory`` (CPU, up to :data:`MEMORY_LIMIT`), ``disk`` (a folder shared by runs), or ``off``: computed
            every time, which can be faster where the tower is small and the disk slow.
        folder: where, for ``disk``; its name must tell the weights that made the features.
    """

    def __init__(self, keep: Keep = "memory", folder: Path | None = None) -> None:
        self.keep, self.folder = keep, folder
        self._kept: Kept[Tensor] = Kept(MEMORY_LIMIT)
        self._checked: set[str] = set()  # of those on disk
        if keep == "disk" and folder is not None:
            hold(folder, self)
            for part in folder.iterdir() if folder.is_dir() else ():
                remove_drafts(part)

    def get(self, pictures: Sequence[Picture], compute: Callable[[list[Picture]], list[Tensor]]) -> list[Tensor]:
        """Features of pictures, in order, on the CPU or, where just computed, on the model's device.

        Args:
            pictures: may hold the same picture more than once.
            compute: called once with the distinct pictures that are not known.
        """
        distinct = {p.key: p for p in pictures}
        found = {key: kept for key in distinct if (kept := self._load(key)) is not None}
        new = {key: p for key, p in distinct.items() if key not in found}
        if new:
            for key, features in zip(new, compute(list(new.values())), strict=True):
                found[key] = features
                self._save(key, features)
        return [found[p.key] for p in pictures]

    def _load(self, key: str) -> Tensor | None:
        if self.keep == "memory":
            return self._kept.get(key)
        if self.keep == "disk" and self.folder is not None and (file := self._file(self.folder, key)).is_file():
            try:
                found = load_file(file) if key in self._checked else load_checked(file)
                self._checked.add(key)
                return found["features"]
            except Unchecked:
                return None
            except (Damaged, SafetensorError, OSError, KeyError) as error:
                log.warning("%s is damaged (%s) and is made again", file, error)
        return None

    def _save(self, key: str, features: Tensor) -> None:
        if self.keep == "memory":
            self._kept.put(key, features.cpu())
        elif self.keep == "disk" and self.folder is not None:
            save_atomically({"features": features.cpu().contiguous()}, self._file(self.folder, key))

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"


def save_atomically(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes a safetensors file that is there whole or not at all, whoever else writes it at the same time.

    A checksum of the tensors stands in its metadata.
    """
    with replacing_shared(file) as temporary:
        save_file(tensors, temporary, {CHECKSUM: checksum(tensors)})


class Damaged(Exception):
    """A file is not what was written; says why."""


class Unchecked(Damaged):
    """A file has no checksum: an earlier version wrote it."""


def load_checked(file: Path) -> dict[str, Tensor]:
    """Reads what :func:`save_atomically` wrote.

    Raises:
        Damaged: if it is something else.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            noted = (opened.metadata() or {}).get(CHECKSUM)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged((str(error).strip() or type(error).__name__).splitlines()[0]) from error
    if noted is None:
        raise Unchecked("it has no checksum")
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
