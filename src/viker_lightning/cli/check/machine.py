"""What a machine has: memory of its device, room on its disks."""

import contextlib
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""What a container may use of the machine's memory (Linux, cgroup v2)."""


def device_memory(device: torch.device) -> int | None:
    """Bytes a run can have: free ones of a GPU, all of a machine, or those a container may use; ``None`` if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(CGROUP.read_text("utf-8")))
    return min(found, default=None)


def existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def free_disk(folder: Path) -> int:
    """Bytes that can be written below a folder, whether it is there yet or not."""
    return shutil.disk_usage(existing(folder)).free


def writable(folder: Path) -> bool:
    """Whether something can be written below a folder; what rights say is not asked, for root has them all."""
    with contextlib.suppress(OSError), TemporaryDirectory(dir=existing(folder)):
        return True
    return False


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders share their room."""
    return existing(one).stat().st_dev == existing(other).stat().st_dev


def supports(device: torch.device, precision: str) -> bool:
    """Whether a device computes in a precision, as the trainer calls it, without doing it in another one."""
    return not (device.type == "cuda" and "bf16" in precision) or torch.cuda.is_bf16_supported(
        including_emulation=False
    )
