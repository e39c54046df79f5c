"""The source of what a run does: of this program, and of classes that others wrote, in files of their own."""

import ast
import functools
import hashlib
import importlib.util
import io
import re
import threading
import tokenize
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

MAKE_RUNS = ("data", "evaluation", "ideal", "methods", "metrics", "models", "training")
"""Rooms whose code makes runs and their numbers; what asks for runs, keeps and shows them changes none."""

STARTING_WEIGHTS = "data/embedded/base/recipe.json"
"""Has the hash of the packaged weights that embedded runs start from."""

METHODS, SHARED_BY_METHODS = "methods", "methods/base.py"
"""The room of the package's methods, of which a run reads its own alone, and what every one is made of."""

INSTALLED = ("site-packages", "dist-packages")
"""Folders of which only the named file counts: what it imports there has a version."""

_ONE_AT_A_TIME = threading.Lock()
"""Python 3.11 counts how deep it is in a tree for all threads together, and fails where two of them parse."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@functools.cache
def code_fingerprint(methods: frozenset[str] | None = None) -> str:
    """Of the code that makes runs, so that a changed program does not pass off old numbers as its own.

    Args:
        methods: names among which are those of all methods a run uses: the files of other methods, that of a new one
            say, do not count then. ``None`` counts all.
    """
    files = [file for room in MAKE_RUNS for file in sorted((PACKAGE / room).rglob("*.py"))]
    if methods is not None:
        room = PACKAGE / METHODS
        own = [file for file in room.glob("*.py") if methods & _classes(file)]
        counted = {PACKAGE / SHARED_BY_METHODS, *with_imports(*own).values()}
        files = [file for file in files if file.parent != room or file in counted]
    files.append(PACKAGE / STARTING_WEIGHTS)
    return fingerprint({file.relative_to(PACKAGE).as_posix(): file for file in files})


def _classes(file: Path) -> set[str]:
    return {node.name for node in _parse(file).body if isinstance(node, ast.ClassDef)}


def with_imports(*files: Path) -> dict[str, Path]:
    """Files of one room of this package and those they import from it, in turn, by their paths; none of other rooms."""
    left, found = [*files], {}
    while left:
        file = left.pop()
        where = file.relative_to(PACKAGE)
        found[where.as_posix()] = file
        for name in _imports(file, PACKAGE.parent):
            parts = name.split(".")[1:]
            if parts[:1] == [where.parts[0]]:
                others = (PACKAGE.joinpath(*parts[:length]).with_suffix(".py") for length in range(2, len(parts) + 1))
                left += [o for o in others if o.is_file() and o.relative_to(PACKAGE).as_posix() not in found]
    return dict(sorted(found.items()))


def fingerprint(files: dict[str, Path]) -> str:
    """A hash of files, by name and content; of Python without comments and docstrings, which change no run."""
    digest = hashlib.sha256()
    for name, file in files.items():
        content = file.read_bytes()
        digest.update(name.encode() + (_code(content) if file.suffix == ".py" else content))
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def _code(content: bytes) -> bytes:
    """The lines of a program that do something; all of what is no Python."""
    try:
        with _ONE_AT_A_TIME:
            tree = ast.parse(content)
        text = content.decode()
        comments = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT]
    except (SyntaxError, ValueError, tokenize.TokenError):
        return content
    lines = text.split("\n")
    for token in comments:
        row, column = token.start
        lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            before, behind = lines[first].encode()[: node.col_offset], lines[last].encode()[node.end_col_offset :]
            if not before.strip() and not behind.strip():
                lines[first : last + 1] = [""] * (last + 1 - first)
    return "\n".join(line.rstrip() for line in lines if line.strip()).encode()


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
