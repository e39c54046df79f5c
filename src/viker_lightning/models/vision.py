"""What a model sees of a picture: features from frozen modules, kept; the rest computed when needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from viker_lightning.cache import cache_folder
from viker_lightning.data.encoding import Encoder, Template
from viker_lightning.data.records import Picture

from .families import Family
from .features import FrozenFeatures, Keep
from .fingerprint import processor_fingerprint, weights_fingerprint


class Vision:
    """Features and shapes of pictures.

    Args:
        family: the model's family.
        processor: its processor.
        keep: where features are kept.
    """

    def __init__(self, family: Family, processor: Any, keep: Keep = "memory") -> None:
        self.family, self.processor, self.keep = family, processor, keep
        self._kept: FrozenFeatures | None = None
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
        if self._kept is None or self._kept.keep != self.keep or frozen != self._projected:
            folder = cache_folder("features", self.fingerprint(model)) if self.keep == "disk" else None
            self._kept, self._projected = FrozenFeatures(self.keep, folder), frozen

        def compute(new: list[Picture]) -> list[Tensor]:
            with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
                # On the CPU one by one, at next to no cost: company would change the last bits of what is kept.
                parts = [[p] for p in new] if model.device.type == "cpu" else [new]
                return [features for part in parts for features in self._read(model, part, frozen)]

        features = [f.to(model.device) for f in self._kept.get(pictures, compute)]
        return features if frozen else self.family.project(model, features, [p.size() for p in pictures])

    def _read(self, model: Any, pictures: Sequence[Picture], project: bool) -> list[Tensor]:
        found = self.family.tower_features(model, self.processor, [p.open() for p in pictures])
        return self.family.project(model, found, [p.size() for p in pictures]) if project else found

    def forget(self) -> None:
        """Drops what is kept in memory; for measuring, and after weights have changed."""
        self._kept = None

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
