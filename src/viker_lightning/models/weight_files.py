"""Which weights a name stands for, and which files are never opened."""

import contextlib
import hashlib
import logging
from pathlib import Path

from transformers.utils.hub import cached_file

from viker_lightning.errors import UserError
from viker_lightning.storage.files import check_index
from viker_lightning.storage.hub import commit_of
from viker_lightning.storage.runs.names import weights_folder

log = logging.getLogger(__name__)


def folder_fingerprint(folder: str | Path) -> str | None:
    """Hash of what is in a model folder: names and bytes of its settings and safetensors; ``None`` for a hub id.

    A single file is hashed likewise.
    """
    here = Path(folder)
    if not here.exists():
        return None
    files = here.iterdir() if here.is_dir() else [here]
    digest = hashlib.sha256()
    for file in sorted(path for path in files if path.suffix in READ):
        with file.open("rb") as opened:
            digest.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def identify_weights(source: str | Path, files: Path | None = None) -> dict[str, str | None]:
    """Which weights a name stands for, to be recorded.

    Args:
        source: folder, run folder or hub id.
        files: the folder or file they were read from; by default where transformers finds them.

    Returns:
        ``source``; ``commit`` of weights from the hub; ``fingerprint`` of any others. Neither if they are not there.
    """
    found: str | Path | None = files
    if found is None:
        with contextlib.suppress(OSError, UserError):  # whoever needs them says what is missing
            found = cached_file(str(weights_folder(source)), "config.json")
        if found is None:
            return {"source": str(source), "commit": None, "fingerprint": None}
        found = Path(found).parent
    commit = commit_of(Path(found))
    return {"source": str(source), "commit": commit, "fingerprint": None if commit else folder_fingerprint(found)}


READ = (".safetensors", ".json", ".jinja")
"""What is read of a model folder."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_pickles(folder: str | Path, name: str = "*") -> None:
    """Makes sure that a folder has its weights, of one name or any, as safetensors: nothing is unpickled.

    An index may name nothing but safetensors beside it. What is no folder, such as a hub id, passes.
    """
    here = Path(folder)
    if not here.is_dir():
        return
    for index in sorted(here.glob("*.safetensors.index.json")):
        check_index(index)
    _name_links(here)
    if any(here.glob(f"{name}.safetensors")):
        return
    found = sorted(path.name for path in here.glob(f"{name}.*") if path.suffix in PICKLES)
    if found:
        raise UserError(
            f"{folder}: found {found[0]}, a pickle, which can run code when it is opened; expected safetensors only; "
            "write the weights with save_pretrained of a current transformers or peft"
        )


def _name_links(folder: Path) -> None:
    """Says which files of a model folder are links that lead out of it; a hub cache's lead to its own blobs."""
    here = folder.resolve()
    inside = here.parents[1] if here.parent.name == "snapshots" else here
    out = [
        file
        for file in sorted(folder.iterdir())
        if file.is_symlink() and file.suffix in (*READ, *PICKLES) and not file.resolve().is_relative_to(inside)
    ]
    if out:
        more = f" (and {len(out) - 1} more)" if len(out) > 1 else ""
        log.warning(
            "%s: %s is a link that leads out of the folder, to %s%s", folder, out[0].name, out[0].resolve(), more
        )
