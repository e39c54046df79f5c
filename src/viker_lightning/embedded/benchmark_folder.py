"""Writing an embedded benchmark: parquet as published, and a folder that is either complete or not there."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from viker_lightning.cache import damage, note_checksums
from viker_lightning.errors import UserError
from viker_lightning.files import draft, remove_drafts

LABEL = "benchmark.json"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Amounts = TypeVar("Amounts")
Build = Callable[[Path, Amounts, int], None]


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


def write_once(
    root: Path, size: str, seed: int, version: str, readme: str, sizes: Mapping[str, Amounts], build: Build[Amounts]
) -> Path:
    """Writes one of the sizes of a benchmark, once: it is left as it is, unless its files are not what was written.

    Args:
        root: the folder; another benchmark written by this function is replaced, anything else is refused.
        size: which one.
        seed: of everything in it.
        version: of the benchmark.
        readme: template of its README, with ``{size}``, ``{seed}`` and ``{version}``.
        sizes: how much of everything there is, by size.
        build: writes so much by seed into an empty folder.

    Returns:
        ``root``.

    Raises:
        UserError: if there is no such size, or ``root`` holds other files.
    """
    if size not in sizes:
        raise UserError(f"size={size!r}: no such benchmark size, choose from {', '.join(sizes)}")
    root, label = Path(root), {"version": version, "size": size, "seed": seed}
    why = damage(root, LABEL) if _read_label(root) == label else "another one"
    if why is None:
        return root
    if root.exists() and _read_label(root) is None and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: holds other files, choose a new or empty folder for the benchmark")
    if _read_label(root) == label:
        print(f"{root} is damaged ({why}) and is made again", flush=True)
    remove_drafts(root.parent, root.name)
    # Built beside the final place and renamed, so that a folder under its final name is always complete.
    with draft(root.parent, root.name) as new:
        build(new, sizes[size], seed)
        (new / "README.md").write_text(readme.format(**label), "utf-8")
        (new / LABEL).write_text(json.dumps(label), "utf-8")
        note_checksums(new)
        if _read_label(root) == label and (foreign := _foreign_files(root, new)):
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


def _read_label(root: Path) -> dict[str, Any] | None:
    try:
        label = json.loads((root / LABEL).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return label if isinstance(label, dict) and label else None  # else it is somebody else's file


def fingerprint(root: Path) -> str:
    """SHA-256 over all configs, texts and images of a benchmark, independent of how parquet stores them."""
    digest = hashlib.sha256()
    for shard in sorted(root.glob("*/*.parquet")):
        digest.update(f"{shard.parent.name}/{shard.name}\n".encode())
        for row in pq.read_table(shard).to_pylist():
            digest.update(
                json.dumps(row, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest()).encode()
            )
    return digest.hexdigest()
