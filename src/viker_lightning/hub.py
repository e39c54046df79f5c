"""Datasets on the hub."""

from __future__ import annotations

from pathlib import Path

from viker_lightning.errors import DataError
from viker_lightning.files import check_folder


def dataset_folder(name: str, revision: str | None = None, there: bool = False) -> Path:
    """The folder a dataset was downloaded to.

    Args:
        name: its id.
        revision: branch, tag or commit.
        there: whether it must be there already; else it is downloaded.

    Raises:
        DataError: if it cannot be had.
    """
    from huggingface_hub import snapshot_download

    check_folder("data.root", name)
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=there))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        at = f" at revision {revision!r}" if revision else ""
        found = f"{name!r} is neither a folder nor a dataset that can be read{at}"
        found = f"{name!r} is neither a folder nor a dataset that can be read{at}"
        found = f"{name!r} is neither a folder nor a dataset that can be read{at}"
        found = f"{name!r} is neither a folder nor a dataset that can be read{at}"
        raise DataError(f"data.root: {found} ({reason})") from error


def commit_of(folder: Path) -> str | None:
    """The commit of a downloaded dataset; ``None`` for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None
