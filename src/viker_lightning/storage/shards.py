"""Weights written as transformers reads them, a shard at a time: no more than one is in memory."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from .files import write_json

SHARD = 2**30
"""Most bytes of a shard, unless one tensor alone has more."""


class Shards:
    """Collects tensors and writes them: one ``model.safetensors``, or several with their index.

    Args:
        folder: where to.
        most: bytes of a shard.
    """

    def __init__(self, folder: Path, most: int = SHARD) -> None:
        self.folder, self.most = folder, most
        self._waiting: dict[str, Tensor] = {}
        self._written: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes one more tensor; what came before it is written where it has no room beside that."""
        if self._waiting and sum(t.nbytes for t in self._waiting.values()) + tensor.nbytes > self.most:
            self._write()
        self._waiting[name] = tensor.contiguous()

    def close(self) -> None:
        """Writes what is left, and gives the files their names, in which stands how many they are."""
        self._write()
        count = len(self._written)
        files = [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
        files = files if count > 1 else ["model.safetensors"]
        for i, file in enumerate(files):
            self._draft(i).replace(self.folder / file)
        if count > 1:
            places = {name: file for file, names in zip(files, self._written, strict=True) for name in names}
            index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
            write_json(self.folder / "model.safetensors.index.json", index)

    def _write(self) -> None:
        save_file(self._waiting, self._draft(len(self._written)), {"format": "pt"})
        self._written.append([*self._waiting])
        self._total += sum(t.nbytes for t in self._waiting.values())
        self._waiting.clear()

    def _draft(self, number: int) -> Path:
        return self.folder / f"part-{number}.safetensors"
