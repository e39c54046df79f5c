"""Where references are kept: safetensors parts in a folder that runs, seeds and lambda sweeps share."""

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.records import Picture
from viker_lightning.models import MLLM
from viker_lightning.models.tensor_files import Damaged, load_checked, save_atomically
from viker_lightning.storage.cache import cache_folder
from viker_lightning.storage.files import remove_drafts

from .reference import NAMES, Reference

log = logging.getLogger(__name__)

Keep = Literal["disk", "memory", "off"]
"""Where references are kept; ``off`` computes them in every step."""

LAYOUT = "2"
"""Changes when what is stored, or how, changes."""


def store_folder(mllm: MLLM) -> Path:
    """The folder for what a frozen model says: its name tells weights, processor, template and types."""
    made_of = f"{LAYOUT}/{mllm.fingerprint}/{mllm.encoder.template}/{mllm.head.weight.dtype}"
    return cache_folder("ideal", hashlib.sha256(made_of.encode()).hexdigest()[:32])


def outside_autocast(mllm: MLLM) -> torch.autocast:
    """What is kept is computed within this: its folder is one for runs with autocast and without."""
    return torch.autocast(mllm.device.type, enabled=False)


def reference_store(mllm: MLLM, keep: Keep) -> "ReferenceStore":
    """Where what a model says is kept: in a folder that runs share (``disk``), or in memory."""
    return ReferenceStore(store_folder(mllm) if keep == "disk" else None)


def reference_key(pictures: Sequence[Picture], question: Encoded) -> str:
    """Identity of a reference of one model: the pictures shown, in their order, and the question and answer tokens."""
    asked = (question.prompt, question.answer, *([question.lead] if question.lead else []))
    made_of = repr(([p.key for p in pictures], *asked))
    return hashlib.sha256(made_of.encode()).hexdigest()


class ReferenceStore:
    """References by key, in memory or in a folder.

    A folder holds part files, written atomically and named by their content, so that any number of runs may read and
    add at the same time; what two of them compute is the same file. A part is checked before anything is taken from it;
    a damaged one is removed, with a line that says so, and what it held counts as unknown.

    Args:
        folder: ``None`` keeps everything in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._memory: dict[str, Reference] = {}
        self._index: dict[str, tuple[Path, int, int]] = {}
        self._open: dict[Path, Any] = {}
        self._tensors: dict[Path, list[str]] = {}  # of a reference; hidden states are kept only where there are some
        self._checked: set[Path] = set()
        if folder is not None:
            remove_drafts(folder)
        self.refresh()

    def refresh(self) -> None:
        """Takes notice of what others have added."""
        for file in sorted(self.folder.glob("part-*.safetensors")) if self.folder else []:
            if file not in self._open:
                try:
                    self._read(file, safe_open(file, framework="pt"))
                except (Damaged, SafetensorError, OSError, ValueError) as error:
                    self._drop(file, str(error).splitlines()[0])

    def _read(self, file: Path, part: Any) -> None:
        held = {*part.keys()}
        rows = {name.removeprefix("key."): part.get_tensor(name).tolist() for name in held if name.startswith("key.")}
        tensors, end = [name for name in NAMES if name in held], max((stop for _, stop in rows.values()), default=0)
        lengths = {tuple(part.get_slice(name).get_shape()[:1]) for name in tensors}
        if file.name != _part(rows) or not {*NAMES[:3]} <= held or lengths != {(end,)}:
            raise Damaged("it holds other tensors")
        self._tensors[file], self._open[file] = tensors, part
        self._index |= {key: (file, start, stop) for key, (start, stop) in rows.items()}

    def _drop(self, file: Path, why: str) -> None:
        """Removes a damaged part: what it held is not known any more, and asked again when it is needed."""
        log.warning("%s is damaged (%s); what it held is computed again", file, why)
        with contextlib.suppress(OSError):
            file.unlink()
        self._open.pop(file, None)
        self._index = {}
        for other, part in self._open.items():  # they may hold some of it, too
            self._read(other, part)

    def _sound(self, file: Path) -> bool:
        """Whether a part is what was written; looked at once, before anything is taken from it."""
        if file not in self._checked:
            try:
                load_checked(file)
                self._read(file, safe_open(file, framework="pt"))  # another run may have written it anew
            except (Damaged, SafetensorError, OSError, ValueError) as error:
                self._drop(file, str(error))
                return False
            self._checked.add(file)
        return True

    def __contains__(self, key: str) -> bool:
        if key in self._memory:
            return True
        while key in self._index:
            if self._sound(self._index[key][0]):
                return key in self._index
        return False

    def get(self, key: str) -> Reference:
        """A stored reference, on the CPU.

        Raises:
            KeyError: if it is not known.
        """
        if key not in self:
            raise KeyError(key)
        if key in self._memory:
            return self._memory[key]
        file, start, stop = self._index[key]
        part = self._open[file]
        return Reference(**{name: part.get_slice(name)[start:stop] for name in self._tensors[file]})

    def add(self, references: Iterable[tuple[str, Reference]]) -> None:
        """Stores references, in a folder as one new part."""
        new = {key: reference.to("cpu") for key, reference in references}
        if self.folder is None:
            self._memory |= new
            return
        whole, start = Reference.cat(list(new.values())), 0
        tensors = {name: getattr(whole, name) for name in NAMES if name != "layers" or whole.layers.shape[1]}
        for key, reference in new.items():
            tensors[f"key.{key}"] = torch.tensor([start, start := start + len(reference.entropy)])
        save_atomically({k: v.contiguous() for k, v in tensors.items()}, self.folder / _part(new))
        self.refresh()


def _part(keys: Iterable[str]) -> str:
    """The name of a part that holds these references."""
    return f"part-{hashlib.sha256(''.join(sorted(keys)).encode()).hexdigest()[:32]}.safetensors"
