"""What a model sees of a picture: features from frozen modules, computed once and kept; the rest when it is needed."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from viker_lightning.data.encoding import Encoder, Template
from viker_lightning.data.records import Picture
from viker_lightning.storage.cache import cache_folder
from viker_lightning.storage.files import keep_from_clearing, remove_drafts

from .families import Family
from .fingerprint import processor_fingerprint, weights_fingerprint
from .lru import LRU
from .tensor_files import Damaged, load_checked, save_atomically

log = logging.getLogger(__name__)

Keep = Literal["memory", "disk", "off"]

MEMORY_LIMIT = 8 * 2**30
"""Bytes of features kept in memory; beyond it the ones longest unused go."""


class Vision:
    """Features and shapes of pictures.

    Args:
        family: the model's family.
        processor: its processor.
        keep: where features are kept.
    """

    def __init__(self, family: Family, processor: Any, keep: Keep = "memory") -> None:
        self.family, self.processor, self.keep = family, processor, keep
        self._features: FrozenFeatures | None = None
        self._projected = False
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._prefixes: dict[tuple[Template, tuple[int, int]], list[int]] = {}

    def shape(self, model: Any, picture: Picture) -> tuple[int, ...]:
        """Positions a picture takes, e.g. ``(576,)`` or rows and columns."""
        if picture.key not in self._shapes:
            self._shapes[picture.key] = self.family.image_shape(model, self.processor, picture.size())
        return self._shapes[picture.key]

    def prefix(self, model: Any, encoder: Encoder, picture: Picture | None) -> list[int]:
        """Token ids before every question about a picture (or, for ``None``, before every question without one)."""
        if picture is None:
            return encoder.prefix(None)
        key = encoder.template, picture.size()
        if key not in self._prefixes:
            self._prefixes[key] = self.family.prefix(model, self.processor, encoder, picture)
        return self._prefixes[key]

    def features(self, model: Any, pictures: Sequence[Picture]) -> list[Tensor]:
        """Token embeddings ``[P, d]`` of pictures, on the model's device.

        Tower features are computed once for each distinct picture, and so is what the projector makes of them, unless
        it is trained. Frozen modules run outside autocast, so that what is kept does not depend on who asked first.
        """
        if not pictures:
            return []
        frozen = self._projector_is_frozen(model)
        if self._features is None or self._features.keep != self.keep or frozen != self._projected:
            folder = cache_folder("features", self.fingerprint(model)) if self.keep == "disk" else None
            self._features, self._projected = FrozenFeatures(self.keep, folder), frozen

        def compute(new: list[Picture]) -> list[Tensor]:
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                # On the CPU one by one, at next to no cost: company would change the last bits of what is kept.
                parts = [[p] for p in new] if model.device.type == "cpu" else [new]
                return [features for part in parts for features in self._read(model, part, frozen)]

        features = [f.to(model.device) for f in self._features.get(pictures, compute)]
        return features if frozen else self.family.project(model, features, [p.size() for p in pictures])

    def _read(self, model: Any, pictures: Sequence[Picture], project: bool) -> list[Tensor]:
        found = self.family.tower_features(model, self.processor, [p.open() for p in pictures])
        return self.family.project(model, found, [p.size() for p in pictures]) if project else found

    def forget(self) -> None:
        """Drops what is kept in memory; for measuring, and after weights have changed."""
        self._features = None

    def fingerprint(self, model: Any) -> str:
        """What decides the features: image settings, frozen weights, and which modules are frozen."""
        modules: dict[str, Any] = {"tower": self.family.tower(model)}
        if self._projector_is_frozen(model):
            modules["projector"] = self.family.projector(model)
        weights = [(f"{k}.{n}", w) for k, m in modules.items() if m is not None for n, w in m.state_dict().items()]
        return weights_fingerprint(weights) + processor_fingerprint(self.processor)[:8] + self.family.code

    def _projector_is_frozen(self, model: Any) -> bool:
        projector = self.family.projector(model)
        return projector is None or not any(p.requires_grad for p in projector.parameters())


class FrozenFeatures:
    """Remembers features by picture.

    Args:
        keep: ``memory`` (CPU, up to :data:`MEMORY_LIMIT`), ``disk`` (a folder shared by runs), or ``off``: computed
            every time, which can be faster where the tower is small and the disk slow.
        folder: where, for ``disk``; its name must tell the weights that made the features.
    """

    def __init__(self, keep: Keep = "memory", folder: Path | None = None) -> None:
        self.keep, self.folder = keep, folder
        self._memory: LRU[Tensor] = LRU(MEMORY_LIMIT)
        self._checked: set[str] = set()  # of those on disk
        if keep == "disk" and folder is not None:
            keep_from_clearing(folder, self)
            for part in folder.iterdir() if folder.is_dir() else ():
                remove_drafts(part)

    def get(self, pictures: Sequence[Picture], compute: Callable[[list[Picture]], list[Tensor]]) -> list[Tensor]:
        """Features of pictures, in order, on the CPU or, where just computed, on the model's device.

        Args:
            pictures: may hold the same picture more than once.
            compute: called once with the distinct pictures that are not known.
        """
        distinct = {p.key: p for p in pictures}
        found = {key: features for key in distinct if (features := self._load(key)) is not None}
        new = {key: p for key, p in distinct.items() if key not in found}
        if new:
            for key, features in zip(new, compute(list(new.values())), strict=True):
                found[key] = features
                self._save(key, features)
        return [found[p.key] for p in pictures]

    def _load(self, key: str) -> Tensor | None:
        if self.keep == "memory":
            return self._memory.get(key)
        if self.keep == "disk" and self.folder is not None and (file := self._file(self.folder, key)).is_file():
            try:
                found = load_file(file) if key in self._checked else load_checked(file)
                self._checked.add(key)
                return found["features"]
            except (Damaged, SafetensorError, OSError, KeyError) as error:
                log.warning("%s is damaged (%s) and is made again", file, error)
        return None

    def _save(self, key: str, features: Tensor) -> None:
        if self.keep == "memory":
            self._memory.put(key, features.cpu())
        elif self.keep == "disk" and self.folder is not None:
            save_atomically({"features": features.cpu().contiguous()}, self._file(self.folder, key))

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"
