"""The source of what a run does: of this program, and of classes that others wrote, in files of their own."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

STARTING_WEIGHTS = PACKAGE / "embedded" / "base" / "recipe.json"
"""Has the hash of the packaged weights that embedded runs start from."""

UNUSED = ("attacks", "chat", "experiments", "preflight", "reporting", "clean_cache.py", "export.py", "lists.py")
"""Rooms and files of the package whose code changes no run."""

INSTALLED = ("site-packages", "dist-packages")
"""Folders of which only the named file counts: what it imports there has a version."""

_ONE_AT_A_TIME = threading.Lock()
"""Python 3.11 counts how deep it is in a tree for all threads together, and fails where two of them parse."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


METHODS = PACKAGE / "methods"
"""The room of the package's methods; a run reads its own alone."""

SHARED_BY_METHODS = METHODS / "base.py"
"""What every method is made of."""


@functools.cache
def code_fingerprint(methods: frozenset[str] | None = None) -> str:
    """Of the code that makes runs, so that a changed program does not pass off old numbers as its own.

    Args:
        methods: names among which are those of all methods a run uses: the files of other methods, that of a new one
            say, do not count then. ``None`` counts all.
    """
    files = [f for f in sorted(PACKAGE.rglob("*.py")) if f.relative_to(PACKAGE).parts[0] not in UNUSED]
    if methods is not None:
        counted = _method_files(methods)
        files = [file for file in files if file.parent != METHODS or file in counted]
    files.append(STARTING_WEIGHTS)
    return fingerprint({file.relative_to(PACKAGE).as_posix(): file for file in files})


def _method_files(names: frozenset[str]) -> set[Path]:
    """Files of the package's methods that define one of these classes, and those they import from beside them."""
    trees = {file: _parse(file) for file in METHODS.glob("*.py")}
    left = [f for f, tree in trees.items() if names & {n.name for n in tree.body if isinstance(n, ast.ClassDef)}]
    found = {SHARED_BY_METHODS}
    while left:
        found.add(file := left.pop())
        room = f"{PACKAGE.name}.{METHODS.name}."
        beside = [name.removeprefix(room) for name in _imports(file, PACKAGE.parent) if name.startswith(room)]
        others = {METHODS / f"{name.partition('.')[0]}.py" for name in beside}
        left += [other for other in others if other in trees and other not in found]
    return found


def with_neighbours(file: Path) -> dict[str, Path]:
    """A file of this package and those it imports from beside it, in turn, by their names; none of other rooms."""
    room = f"{PACKAGE.name}.{file.parent.name}."
    left, found = [file], {}
    while left:
        one = left.pop()
        found[one.name] = one
        beside = [name.removeprefix(room) for name in _imports(one, PACKAGE.parent) if name.startswith(room)]
        others = {file.parent / f"{name.partition('.')[0]}.py" for name in beside}
        left += [other for other in others if other.is_file() and other.name not in found]
    return dict(sorted(found.items()))


def fingerprint(files: dict[str, Path]) -> str:
    """A hash of files, by name and content."""
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def source_files(name: str) -> dict[str, Path]:
    """The file that a class stands in and those it imports from beside it, in turn; nothing is run or imported.

    Args:
        name: dotted path of the class, e.g. ``simnpo.SimNPO``.

    Returns:
        Files by their path from where Python finds the first name; empty for a class of this package, of Python
        itself, or if there is no such module.
    """
    if not _DOTTED.fullmatch(name):
        return {}
    top = name.split(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return {}
    if spec is None or spec.origin in ("built-in", "frozen") or not (spec.origin or spec.submodule_search_locations):
        return {}
    first = Path(spec.origin) if spec.origin else Path(next(iter(spec.submodule_search_locations or [])))
    root = (first.parent if first.name == "__init__.py" else first).parent.resolve()
    if (root / top).resolve() == PACKAGE or Path(functools.__file__).resolve().parent == root:
        return {}
    found: dict[str, Path] = {}
    left = [name.rpartition(".")[0]]
    while left:
        for file in _files(root, left.pop()):
            if (where := file.relative_to(root).as_posix()) in found:
                continue
            found[where] = file
            if not set(INSTALLED) & set(root.parts):
                left += [module for module in _imports(file, root) if module.split(".")[0] != PACKAGE.name]
    return dict(sorted(found.items()))


def _files(root: Path, module: str) -> Iterator[Path]:
    """The file of a module in a folder, and of the packages above it; a name behind the module is passed over."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def _imports(file: Path, root: Path) -> Iterator[str]:
    """What a file imports, as dotted names; a relative import from where the file is."""
    try:
        tree = _parse(file)
    except (SyntaxError, ValueError):
        return
    package = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)


def _parse(file: Path) -> ast.Module:
    with _ONE_AT_A_TIME:
        return ast.parse(file.read_bytes())
