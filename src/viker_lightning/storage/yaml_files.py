"""YAMLs of a command line, read as trees: what is wrong with one is said with its line, before any parser sees it."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from viker_lightning.errors import UserError

from .secrets import name_to_show

MOST_VALUES = 100_000
"""Values a YAML may hold once its aliases are written out; a run's has some dozens."""

BETWEEN = ("init_args", "dict_kwargs")
"""Names that stand between a class and its options in a YAML, and are not typed."""

READ = ("--config", "-c", "--model", "--data", "--trainer")
"""Options whose value may be a file that the parser reads as YAML, whatever it is called."""


def read_yamls(arguments: Sequence[str], groups: Iterable[str] = ()) -> dict[str, yaml.Node]:
    """Every YAML that is named on a command line, as a tree, in that order; ``groups`` are options that hold others."""
    trees, before = {}, ""
    for argument in arguments:
        name, given, value = argument.partition("=") if argument.startswith("-") else (before, "=", argument)
        before = "" if given else name
        if odd := _odd_character(argument):
            raise UserError(f"{name_to_show(name.lstrip('-'))}: holds {odd}, which no text has; leave it out")
        if given and not value and name in ("--config", "-c", "--trainer"):
            option = "trainer" if name == "--trainer" else "config"
            raise UserError(f"{option}: found nothing, expected the path of a YAML; leave it out for none")
        if (name in READ or value.endswith((".yaml", ".yml"))) and os.path.isfile(value):
            trees[value] = read_yaml(Path(value))
            _check_shape(value, trees[value], set(groups))
    return trees


def _odd_character(text: str) -> str | None:
    """The first character that neither a path nor a file of UTF-8 can hold."""
    found = re.search("[\0\ud800-\udfff]", text)
    return f"the character U+{ord(found[0]):04X}" if found else None


def _check_shape(file: str, root: yaml.Node, groups: set[str]) -> None:
    """Refuses, naming the line, what the parser takes or stumbles on: classes without name, groups without options."""
    for name, value in root.value if isinstance(root, yaml.MappingNode) else ():
        unset = name.value in ("model", "data") and kind_of(value) in ("nothing", "a text")  # the parser's to say
        if name.value in groups and not unset and not isinstance(value, yaml.MappingNode):
            found = f"{name.value}: found {kind_of(value)}"
            raise UserError(f"{file}, line {line_of(name)}: {found}, expected lines of 'name: value'")
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        for name, value in node.value:
            waiting.append(value)
            kind = kind_of(value)
            if name.value == "class_path" and kind != "a text":
                raise UserError(f"{file}, line {line_of(name)}: class_path: found {kind}, expected the name of a class")
            if name.value == "init_args" and not isinstance(value, yaml.MappingNode):
                expected = "expected lines of 'name: value'; leave it out for none"
                raise UserError(f"{file}, line {line_of(name)}: init_args: found {kind}, {expected}")


def kind_of(node: yaml.Node | None) -> str:
    """What a value is, in plain words."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "names and values"
    tag = "null" if node is None else node.tag.rpartition(":")[2]
    return {"null": "nothing", "str": "a text"}.get(tag) or repr(getattr(node, "value", None))


def read_yaml(file: Path) -> yaml.Node:
    """A YAML that holds names and values, each name once; an error names the line where it is none."""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise UserError(f"{file}: values are nested too deeply; write it as a run's config.yaml is") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {_why_no_yaml(error)}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{file}: found {kind_of(root)}, expected lines of 'name: value'")
    _count_values(file, root, {})
    try:
        yaml.safe_load(text)  # tags and names that only then are found wrong
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {_why_no_yaml(error)}") from error
    except ValueError:  # what looks like a date: a text, to the parser
        pass
    return root


def yaml_values(file: Path) -> Any:
    """What a YAML holds, as dictionaries and lists; what looks like a date and is none is an error."""
    read_yaml(file)
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: looks like a date and is none ({error}); put it in quotes") from error


def _why_no_yaml(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if "could not determine a constructor" in str(problem):
        problem = f"{problem}; write plain values: no YAML makes objects"
    if "cannot start any token" in str(problem):
        problem = f"{problem}; indent with spaces, quote texts that begin with @ or `"
    return f"{place}no YAML ({problem or ' '.join(str(error).split())})"


def _count_values(file: Path, node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a part of a YAML has, aliases written out; says what occurs twice, is endless, or is too much."""
    if id(node) in counted:
        if not counted[id(node)]:
            raise UserError(f"{file}, line {line_of(node)}: this part holds itself (an alias in its anchor); undo it")
        return counted[id(node)]
    if isinstance(node, yaml.ScalarNode):
        if odd := _odd_character(node.value):
            raise UserError(f"{file}, line {line_of(node)}: holds {odd}, which no text has; leave it out")
        return 1
    counted[id(node)] = 0
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                first = line_of(seen[key.value])
                raise UserError(
                    f"{file}, line {line_of(key)}: {key.value!r} occurs twice, first in line {first}; keep one"
                )
            seen[str(key.value)] = key
        parts = [part for pair in node.value for part in pair]
    counted[id(node)] = size = 1 + sum(_count_values(file, part, counted) for part in parts)
    if size > MOST_VALUES:
        raise UserError(
            f"{file}, line {line_of(node)}: its aliases stand for more than {MOST_VALUES:,} values; undo them"
        )
    return size


def line_of(node: yaml.Node) -> int:
    """The line a value begins in, from 1."""
    return int(node.start_mark.line) + 1


def find_option(node: yaml.Node, names: Sequence[str]) -> tuple[yaml.Node, yaml.Node] | None:
    """Name and value of an option in a YAML, where ``init_args`` stands between."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in BETWEEN:
            found = find_option(value, names)
        elif key.value == names[0]:
            found = (key, value) if len(names) == 1 else find_option(value, names[1:])
        else:
            continue
        if found is not None:
            return found
    return None


def names_in(node: yaml.Node) -> Iterator[yaml.Node]:
    """Every name in a YAML, in its order."""
    for part in node.value if not isinstance(node, yaml.ScalarNode) else ():
        if isinstance(part, tuple):
            yield part[0]
            part = part[1]
        yield from names_in(part)


def is_value(name: yaml.Node, value: str) -> bool:
    """Whether a name stands for a value that is no text, as Python shows it."""
    return kind_of(name) != "a text" and isinstance(name.value, str) and str(yaml.safe_load(name.value)) == value
