"""Reads the file of an offline W&B run back: records in the log format of LevelDB, checksums included."""

import json
import struct
from collections import defaultdict
from pathlib import Path
from zlib import crc32

from wandb.proto import wandb_internal_pb2 as pb

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file):
    data, at, parts = file.read_bytes(), HEADER, []
    assert data[:4] == b":W&B"
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # too little is left of the block for another record
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + HEADER : at + HEADER + length]
        assert checksum == crc32(bytes([kind]) + part) and len(part) == length
        parts = [*parts, part] if kind in (MIDDLE, LAST) else [part]
        if kind in (FULL, LAST):
            yield pb.Record.FromString(b"".join(parts))
        at += HEADER + length


def values(items):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


class Offline:
    """The run a folder holds; ``history`` has, for every name, a list of ``(step, value)``."""

    def __init__(self, folder: Path):
        (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        self.files = file.parent / "files"
        self.config, self.summary, self.history = {}, {}, defaultdict(list)
        self.defined, self.artifacts = {}, []
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.group, self.job_type = record.run.run_group, record.run.job_type
                self.name = record.run.display_name
                self.config |= values(record.run.config.update)
            elif kind == "config":
                self.config |= values(record.config.update)
            elif kind == "metric":
                self.defined[record.metric.name or record.metric.glob_name] = record.metric
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "history":
                found = values(record.history.item)
                for name, value in found.items():
                    self.history[name].append((found.get("trainer/global_step"), value))
