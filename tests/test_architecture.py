"""Imports: which room may know which, no circle of rooms or files, and no private name of another room."""

import ast
import functools
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/viker_lightning"
PACKAGE = "viker_lightning"

GROUND = {"metrics", "storage", "terminal"}
MODEL = GROUND | {"data", "models"}
ASKED_OF_RUNS = GROUND | {"data", "models", "evaluation", "training", "reporting", "jobs"}

ALLOWED = {
    "metrics": set(),
    "storage": {"metrics"},
    "terminal": {"storage"},
    "jobs": {"storage", "terminal"},
    "reporting": GROUND,
    "data": {"storage", "terminal"},
    "models": {"data", "storage", "terminal"},
    "ideal": MODEL,
    "methods": (MODEL | {"ideal"}) - {"terminal"},
    "evaluation": (MODEL | {"ideal"}) - {"terminal"},
    "training": MODEL | {"ideal", "methods", "evaluation", "reporting", "jobs"},
    "attacks": ASKED_OF_RUNS,
    "grids": GROUND | {"data", "reporting", "jobs", "attacks"},
    "cli": (ASKED_OF_RUNS - {"metrics"}) | {"ideal", "methods", "attacks"},
}
"""The rooms that a room may import, from the ground to the door; every room may import the files beside the rooms."""

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
    """The room of a module; empty for the files beside the rooms."""
    parts = module.split(".")[1:]
    return parts[0] if parts and (SOURCE / parts[0]).is_dir() else ""


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


def test_the_rooms_and_the_files_beside_them():
    assert {room(module) for module in MODULES} == {*ALLOWED, ""}
    assert {file.name for file in SOURCE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}
    list(TopologicalSorter(ALLOWED).static_order())  # raises CycleError
    assert sum(map(len, ALLOWED.values())) <= 100


@pytest.mark.parametrize("name", ALLOWED)
def test_a_room_knows_only_what_it_may(name):
    wrong = [
        f"{MODULES[m].relative_to(SOURCE)}:{line} imports {target}"
        for m, target, _, line in arrows()
        if room(m) == name and room(target) not in {*ALLOWED[name], name, ""}
    ]
    assert not wrong, "\n".join(wrong)


def test_every_allowed_arrow_is_there():
    """So that the graph above is the house as it is."""
    drawn = {(room(m), room(target)) for m, target, _, _ in arrows()}
    unused = {(name, other) for name, others in ALLOWED.items() for other in others} - drawn
    assert not unused


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
        if file.stem not in SAME_NAME and file.parent.name != "kinds":  # attacks are called as the command calls them
            places[file.stem].add(room(module))
    twice = {stem: sorted(rooms) for stem, rooms in places.items() if len(rooms) > 1}
    assert not twice


def tangled(node: ast.AST, depth: int = 0) -> list[int]:
    """Lines of comprehensions with more than two ``for``, or inside two others."""
    lines = []
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        depth += 1
        lines += [node.lineno] if len(node.generators) > 2 or depth > 2 else []
    return lines + [line for child in ast.iter_child_nodes(node) for line in tangled(child, depth)]


def test_comprehensions_are_plain():
    files = {file.relative_to(SOURCE): ast.parse(file.read_text("utf-8")) for file in MODULES.values()}
    wrong = [f"{file}:{line}" for file, tree in files.items() for line in tangled(tree)]
    assert not wrong, "\n".join(["write a loop, or a helper with a name, in place of:", *wrong])
