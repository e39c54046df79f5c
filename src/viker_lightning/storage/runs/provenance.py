"""What program made a run: versions, commit, and the source of a method that is not this package's."""

import inspect
import json
import logging
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from viker_lightning.storage.files import replacing_folder, write_json
from viker_lightning.storage.secrets import hide, hide_quoted
from viker_lightning.storage.sources import code_fingerprint, fingerprint, source_files

from . import names

log = logging.getLogger(__name__)

PACKAGES = (
    "viker-lightning",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "jsonargparse",
    "omegaconf",
    "torchmetrics",
)


def program(run: Path, checkpoint: str | Path | None, source: dict[str, str | None] | None) -> dict[str, Any]:
    """Which program runs, and which other ones took the steps before.

    Args:
        run: folder of the run.
        checkpoint: file the run starts from, if any; its run folder has a record.
        source: of its method, as :func:`keep_source` gives it; ``None`` if it has none.
    """
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "git_commit": git_commit(run),
        "code": code_fingerprint(),
        "earlier_sources": earlier_sources(checkpoint, source),
    }


def settings(thing: Any, wanted: Iterable[str] | None = None) -> dict[str, Any]:
    """Plain values of an object: by default those of its class's arguments."""
    found = {name: getattr(thing, name, None) for name in wanted or inspect.signature(type(thing)).parameters}
    return {name: v for name, v in found.items() if isinstance(v, int | float | str)}


def note_peak_memory(run: Path, peak: int) -> None:
    """Adds the peak of GPU memory, in bytes, to what was recorded when training started."""
    file = run / names.PROVENANCE
    if file.is_file():
        record = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, record | {"peak_gpu_memory_bytes": peak})


def keep_source(methods: Sequence[Any], run: Path) -> dict[str, str | None]:
    """Copies a method's files into the run folder, unless they are this package's; without tokens and passwords.

    It returns ``module``, ``file`` and ``hash``: of the files copied, ``None`` if there are none.
    """
    kind = type(methods[0])
    files: dict[str, Path] = {}
    for one in methods:
        files |= source_files(f"{type(one).__module__}.{type(one).__qualname__}")
    files = dict(sorted(files.items()))
    if files:
        with replacing_folder(run / names.SOURCE) as folder:
            for name, file in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                text = file.read_text(encoding="utf-8", errors="replace")
                (folder / name).write_text(hide(hide_quoted(text)), encoding="utf-8")
    stands_in = inspect.getsourcefile(kind)
    return {"module": kind.__module__, "file": stands_in, "hash": fingerprint(files) if files else None}


def earlier_sources(checkpoint: Any, source: dict[str, str | None] | None) -> list[dict[str, Any]]:
    """What other code took the steps that a run is resumed from, oldest first; says in one line if there was any."""
    if not checkpoint:
        return []
    try:
        before = json.loads((Path(checkpoint).parent.parent / names.PROVENANCE).read_text(encoding="utf-8"))
        then = {"code": before["code"], "method": (before["method_source"] or {}).get("hash")}
        found: list[dict[str, Any]] = before["earlier_sources"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):  # of no run of ours
        return []
    source = source or {}
    if then == {"code": code_fingerprint(), "method": source.get("hash")}:
        return found
    changed = "this program" if then["code"] != code_fingerprint() else f"the source of {source.get('module')}"
    log.warning(
        "%s has changed since the steps before %s were taken, so that this run is made of both (earlier_sources in "
        "provenance.json); leave --ckpt_path out to train anew",
        *(changed, checkpoint),
    )
    return [*found, then]


def git_commit(run: Path | None = None) -> str | None:
    """The commit of the working folder, with ``+`` if files differ or are new; ``None`` outside a repository.

    Args:
        run: folder of the run. What is in it, in any other run folder, or ignored by git makes no difference.
    """

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout

    try:
        commit, top = git("rev-parse", "HEAD", "--show-toplevel").splitlines()
        changed = bool(git("status", "--porcelain", "--untracked-files=no").strip())
        new = git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", top).split("\0")[:-1]
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    runs = {Path(run).resolve()} if run else set()
    files = [Path(top, name) for name in new]
    runs |= {file.parent for file in files if file.name == names.PROVENANCE}
    changed = changed or any(not runs & {file, *file.parents} for file in files)
    return commit + ("+" if changed else "")
