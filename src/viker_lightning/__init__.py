"""Visual-guided key-token regularisation and its rivals: make a multimodal LLM forget people, and show it."""

import sys

if (
    as_module := sys.argv[:1] == ["-m"] and any(w.partition(".")[0] == "viker_lightning" for w in sys.orig_argv[1:])
) and not sys.flags.safe_path:
    del sys.path[0]  # the working folder: a file in it would stand for any library of its name

from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

ROOMS = {
    "training.callbacks": ("Evaluation", "KnowledgeGate", "trainer"),
    "data.records": ("Picture",),
    "data.datasets": ("CLEAR", "MLLMU", "FIUBench", "Jsonl", "Questions", "UMUBench"),
    "methods": ("Stranger", "ViKeR"),
    "models": ("MLLM", "Lora", "ask"),
    "training": ("Finetune", "Unlearn"),
}
"""What a script needs most, by the room it is in. It is loaded when it is asked for: torch takes seconds."""


def look_here_last() -> None:
    """Lets a method of yours, say, be imported from the working folder, behind all that is installed.

    From a run folder nothing is: it may be somebody else's.
    """
    here = Path.cwd()
    files = ("provenance.json", "config.yaml")
    of_a_run = any(all((folder / file).exists() for file in files) for folder in (here, *here.parents))
    if not of_a_run and not {"", str(here)} & {*sys.path}:
        sys.path.append(str(here))


if as_module:
    look_here_last()


MOVED = {f"{__name__}.datasets": f"{__name__}.data.datasets"}
"""Where the config of an older run finds the class of its data."""


class _Moved:
    """Has ``import`` find a module under the name that older runs have for it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """None: an ordinary one will do."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = lambda name: getattr(import_module(MOVED[module.__name__]), name)


sys.meta_path.append(_Moved())


def __getattr__(name: str) -> Any:
    for room, names in ROOMS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name for names in ROOMS.values() for name in names)])
