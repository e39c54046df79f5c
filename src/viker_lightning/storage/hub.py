"""Datasets and models on the hub."""

import re
from pathlib import Path

from viker_lightning.errors import DataError, UserError, short

from .files import check_folder
from .secrets import hide


def dataset_folder(name: str, revision: str | None = None, download: bool = True) -> Path:
    """The folder a dataset was downloaded to, at a branch, tag or commit; an error if it cannot be had."""
    from huggingface_hub import snapshot_download

    check_folder("data.root", name)
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=not download))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        at = f" at revision {revision!r}" if revision else ""
        found = f"{name!r} is neither a folder nor a dataset that can be read{at}"
        raise DataError(f"data.root: {found} ({reason})") from error


def check_model_name(name: str) -> None:
    """Refuses what is no ``OWNER/NAME`` of a model on the hub, before anything is made for it."""
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name, re.ASCII):
        raise UserError(f"--push: found {short(name)}, expected OWNER/NAME")


def push_model(folder: Path, name: str) -> str:
    """Uploads a model folder, with its card, as ``OWNER/NAME``, and returns the page it is then on.

    The token is that of ``hf auth login`` or ``HF_TOKEN``. A repository that is not there yet is made, a private one:
    a model that has learned and forgotten people is shown to others by a decision, not by default. If the hub does not
    take it, nothing secret is in the message.
    """
    from huggingface_hub import HfApi

    check_model_name(name)
    api = HfApi()
    try:
        page = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Unlearned with viker-lightning")
    except Exception as error:
        reason = hide(next(iter(str(error).strip().splitlines()), type(error).__name__))
        remedy = "log in (hf auth login, or HF_TOKEN with write access) and see that the name is yours"
        raise UserError(f"--push: {name} was not uploaded ({reason}); {folder} is complete; {remedy}") from error
    return str(page)


def commit_of(folder: Path) -> str | None:
    """The commit of a downloaded dataset; ``None`` for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None
