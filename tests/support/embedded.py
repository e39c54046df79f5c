"""Whether an embedded benchmark is what it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq


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
