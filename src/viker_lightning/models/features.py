"""Features of frozen vision modules: computed once for each distinct picture, kept where the user wants them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from viker_lightning.data.records import Picture
from viker_lightning.files import raise_named

from .kept import Kept

Keep = Literal["memory", "disk", "off"]

MEMORY_LIMIT = 8 * 2**30
"""Bytes of features kept in memory; beyond it the ones longest unused go."""


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
            return load_file(file)["features"]
        return None

    def _save(self, key: str, features: Tensor) -> None:
        if self.keep == "memory":
            self._kept.put(key, features.cpu())
        elif self.keep == "disk" and self.folder is not None:
            save_atomically({"features": features.cpu().contiguous()}, self._file(self.folder, key))

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"


def save_atomically(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that is there whole or not at all, whoever else writes it at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=".tmp")
    os.close(handle)
    try:
        save_file(tensors, name, metadata)
        os.replace(name, file)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        raise_named(error, file)
