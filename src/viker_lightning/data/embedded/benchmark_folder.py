"""Writing an embedded benchmark: parquet as published, and a folder that is either complete or not there."""

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from viker_lightning.errors import UserError, say
from viker_lightning.storage.cache import CHECKSUMS, damage, note_checksums
from viker_lightning.storage.files import draft, remove_drafts

LABEL = "benchmark.json"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image_cell(data: bytes, path: str) -> dict[str, Any]:
    """An image as ``datasets`` stores it."""
    return {"bytes": data, "path": path}


def write_config(root: Path, config: str, schema: pa.Schema, rows: list[dict[str, Any]], shards: int = 1) -> None:
    """Writes the rows of a config as parquet shards."""
    (root / config).mkdir()
    size = math.ceil(len(rows) / shards)
    for shard in range(shards):
        table = pa.Table.from_pylist(rows[shard * size : (shard + 1) * size], schema=schema)
        pq.write_table(table, root / config / f"train-{shard:05d}-of-{shards:05d}.parquet")


@dataclass(frozen=True)
class EmbeddedBenchmark:
    """A benchmark that is drawn from a seed and written on first use.

    Attributes:
        version: part of its folder's name; another one for other contents.
        readme: template of its README, with ``{size}``, ``{seed}`` and ``{version}``.
        sizes: how much of everything there is, by size.
        build: writes so much by seed into an empty folder.
        grammar: makes a pattern that every sentence in it matches as a whole.
    """

    version: str
    readme: str
    sizes: Mapping[str, Any]
    build: Callable[[Path, Any, int], None]
    grammar: Callable[[], re.Pattern[str]]

    def write(self, root: Path, size: str, seed: int = 0) -> Path:
        """Writes one of the sizes into ``root``, which it returns, once: it is left so, unless its files are altered.

        Args:
            root: the folder; another benchmark written by this method is replaced, anything else is refused.
            size: which one.
            seed: of everything in it.

        Raises:
            UserError: if there is no such size, or ``root`` holds other files.
        """
        if size not in self.sizes:
            raise UserError(f"size={size!r}: no such benchmark size, choose from {', '.join(self.sizes)}")
        root, label = Path(root), {"version": self.version, "size": size, "seed": seed}
        found = _read_label(root) or (label if _was_labelled(root) else None)
        why = damage(root, LABEL) if found == label else "another one"
        if why is None:
            return root
        if root.exists() and found is None and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"{root}: holds other files, choose a new or empty folder for the benchmark")
        if found == label:
            say(f"{root} is damaged ({why}) and is made again")
        remove_drafts(root.parent, root.name)
        # Built beside the final place and renamed, so that a folder under its final name is always complete.
        with draft(root.parent, root.name) as new:
            self.build(new, self.sizes[size], seed)
            (new / "README.md").write_text(self.readme.format(**label), "utf-8")
            (new / LABEL).write_text(json.dumps(label), "utf-8")
            note_checksums(new)
            if found == label and (foreign := _foreign_files(root, new)):
                reason = f"{foreign[0]} is no file of the benchmark, which is to be made again"
                raise UserError(f"{root}: {reason}; move it away")
            if root.exists():
                shutil.rmtree(root)
            try:
                new.rename(root)
            except OSError:  # another process was faster
                if _read_label(root) != label:
                    raise
        return root


def _foreign_files(root: Path, new: Path) -> list[str]:
    """Files of somebody else's: those that the same benchmark, made anew, does not have."""
    files = [file.relative_to(root) for file in sorted(root.rglob("*")) if file.is_file()]
    return [name.as_posix() for name in files if not (new / name).exists() and not name.name.startswith(".")]


def _was_labelled(root: Path) -> bool:
    """Whether the checksums tell of a label, be it gone or cut short."""
    try:
        return f"  {LABEL}\n" in (root / CHECKSUMS).read_text("utf-8")
    except (OSError, ValueError):
        return False


def _read_label(root: Path) -> dict[str, Any] | None:
    try:
        label = json.loads((root / LABEL).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return label if isinstance(label, dict) and label else None  # else it is somebody else's file
