"""Imports point one way: which room may know which, no circle of files, and no private name of another room."""

import ast
import functools
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/viker_lightning"
PACKAGE = "viker_lightning"

ORDER = (
    *("ground", "embedded", "data", "metrics", "runs", "datasets", "pictures", "models", "ideal", "methods"),
    *(
        "evaluation",
        "published",
        "training",
        "reporting",
        "callbacks",
        "preflight",
        "experiments",
        "attacks",
        "chat",
        "cli",
    ),
)
"""A room imports itself and what stands before it; files of no room are the ground floor, but for the commands."""

READERS = {"reporting": {"evaluation"}, "experiments": {"evaluation", "reporting"}}
"""These read run folders: of what stands above ``runs`` they know no more than this."""

COMMANDS = ("cli", "__main__", "lists", "export", "clean_cache")
SAME_NAME = ("__init__", "__main__", "base", "clear", "llava", "mllmu", "provenance")
"""Names that mean the same in every room."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in SOURCE.rglob("*.py"):
        parts = file.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def room(module: str) -> str:
    """The room of a module."""
    parts = module.split(".")[1:]
    if len(parts) > 1 or (parts and (SOURCE / parts[0]).is_dir()):
        return parts[0]
    return "cli" if parts and parts[0] in COMMANDS else "ground"


def imports(module: str) -> list[tuple[str, str, int]]:
    """What a module imports of the package, also for its types: module, name, line."""
    file = MODULES[module]
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for name in (alias.name for alias in node.names) if target.split(".")[0] == PACKAGE else ():
                whole = f"{target}.{name}"
                found.append((whole, "", node.lineno) if whole in MODULES else (target, name, node.lineno))
    return found


@functools.cache
def arrows() -> list[tuple[str, str, str, int]]:
    """All imports: what a module imports, as :func:`imports` has it, behind its name."""
    return [(module, *arrow) for module in MODULES for arrow in imports(module)]


@pytest.mark.parametrize("name", ORDER)
def test_a_room_knows_only_what_stands_before_it(name):
    assert {room(module) for module in MODULES} <= set(ORDER)
    before = set(ORDER[: ORDER.index(name) + 1])
    if name in READERS:
        before = {"ground", "metrics", "runs", "data", name} | READERS[name]
    wrong = [
        f"{MODULES[m].relative_to(SOURCE)}:{line} imports {target}"
        for m, target, _, line in arrows()
        if room(m) == name and room(target) not in before
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files():
    graph = defaultdict(set)
    for module, target, _, _ in arrows():
        graph[module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_private_names_stay_in_their_room():
    wrong = [
        f"{MODULES[m].relative_to(SOURCE)}:{line} imports {target}.{name}"
        for m, target, name, line in arrows()
        if name.startswith("_") and not name.startswith("__") and room(m) != room(target)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_file_name_means_one_thing():
    places = defaultdict(set)
    for module, file in MODULES.items():
        if file.stem not in SAME_NAME:
            places[file.stem].add(room(module))
    twice = {stem: sorted(rooms) for stem, rooms in places.items() if len(rooms) > 1}
    assert not twice
