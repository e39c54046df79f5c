"""What is wrong with an option or a YAML, in one line: where it stands, what was found, and the nearest known name."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from viker_lightning.errors import UserError, check_least
from viker_lightning.secrets import hide, hide_in

MOST_VALUES = 100_000
"""Values a YAML may hold once its aliases are written out; a run's has some dozens."""

MOST_SEED = 2**32 - 1
"""The largest seed NumPy takes."""

LONGEST = 80
"""Characters of a value that are repeated in a message."""

BETWEEN = ("init_args", "dict_kwargs")
"""Names that stand between a class and its options in a YAML, and are not typed."""

CLASSES = re.compile(r"<class '(?:[\w.]*\.)?(\w+)'>|(?:typing|collections\.abc)\.")
NONE = "<class 'NoneType'>"


RENAMED = {
    "gate.known": "gate.knowledge",
    "gate.shown": "gate.follows_image",
    "gate.asked": "gate.follows_text",
}
"""Options that earlier versions called otherwise, and what they are called now."""

COMMANDS = ("fit", "validate", "test", "predict")


class Refused(Exception):
    """What the parser says of an option, in many lines of its own."""


class Parser(LightningArgumentParser):
    """Lightning's parser; an option counts only when written in full, and nothing is printed for one that is wrong."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hands over what is wrong, in place of the usage and an exit."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise Refused(message) from ex


READ = ("--config", "-c", "--model", "--data", "--trainer")
"""Options whose value may be a file that the parser reads as YAML, whatever it is called."""


def read_yamls(arguments: Sequence[str], groups: Iterable[str] = ()) -> dict[str, yaml.Node]:
    """Every YAML that is named on a command line, as a tree, in that order.

    Args:
        arguments: of the command line.
        groups: options that hold other options, such as ``trainer``.

    Raises:
        UserError: if one of them, or an argument, is not as it must be.
    """
    trees, before = {}, ""
    for argument in arguments:
        name, given, value = argument.partition("=") if argument.startswith("-") else (before, "=", argument)
        before = "" if given else name
        if odd := _no_text(argument):
            raise UserError(f"{_hidden(name.lstrip('-'))}: holds {odd}, which no text has; leave it out")
        if given and not value and name in ("--config", "-c", "--trainer"):
            option = "trainer" if name == "--trainer" else "config"
            raise UserError(f"{option}: found nothing, expected the path of a YAML; leave it out for none")
        if (name in READ or value.endswith((".yaml", ".yml"))) and os.path.isfile(value):
            trees[value] = read_yaml(Path(value))
            _check_shape(value, trees[value], set(groups))
    return trees


def _no_text(text: str) -> str | None:
    """The first character that neither a path nor a file of UTF-8 can hold."""
    found = re.search("[\0\ud800-\udfff]", text)
    return f"the character U+{ord(found[0]):04X}" if found else None


def _check_shape(file: str, root: yaml.Node, groups: set[str]) -> None:
    """Refuses what the parser takes, or stumbles on: classes without name, and options that hold none.

    Raises:
        UserError: naming line and option.
    """
    for name, value in root.value if isinstance(root, yaml.MappingNode) else ():
        unset = name.value in ("model", "data") and _kind(value) in ("nothing", "a text")  # the parser's to say
        if name.value in groups and not unset and not isinstance(value, yaml.MappingNode):
            found = f"{name.value}: found {_kind(value)}"
            raise UserError(f"{file}, line {_line(name)}: {found}, expected lines of 'name: value'")
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
            kind = _kind(value)
            if name.value == "class_path" and kind != "a text":
                raise UserError(f"{file}, line {_line(name)}: class_path: found {kind}, expected the name of a class")
            if name.value == "init_args" and not isinstance(value, yaml.MappingNode):
                expected = "expected lines of 'name: value'; leave it out for none"
                raise UserError(f"{file}, line {_line(name)}: init_args: found {kind}, {expected}")


def _kind(node: yaml.Node | None) -> str:
    """What a value is, in plain words."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "names and values"
    tag = "null" if node is None else node.tag.rpartition(":")[2]
    return {"null": "nothing", "str": "a text"}.get(tag) or repr(getattr(node, "value", None))


def read_yaml(file: Path) -> yaml.Node:
    """A YAML that holds names and values, each name once.

    Raises:
        UserError: if it is no such file, naming its line.
    """
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
        raise UserError(f"{file}: found {_kind(root)}, expected lines of 'name: value'")
    _size(file, root, {})
    try:
        yaml.safe_load(text)  # tags and names that only then are found wrong
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {_why_no_yaml(error)}") from error
    except ValueError:  # what looks like a date: a text, to the parser
        pass
    return root


def yaml_values(file: Path) -> Any:
    """What a YAML holds, as dictionaries and lists.

    Raises:
        UserError: if it is not as :func:`read_yaml` wants it, or a date in it is none.
    """
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


def _size(file: Path, node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a part of a YAML has, aliases written out; says what occurs twice, is endless, or is too much."""
    if id(node) in known:
        if not known[id(node)]:
            raise UserError(f"{file}, line {_line(node)}: this part holds itself (an alias in its own anchor); undo it")
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        if odd := _no_text(node.value):
            raise UserError(f"{file}, line {_line(node)}: holds {odd}, which no text has; leave it out")
        return 1
    known[id(node)] = 0
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                first = _line(seen[key.value])
                raise UserError(
                    f"{file}, line {_line(key)}: {key.value!r} occurs twice, first in line {first}; keep one"
                )
            seen[str(key.value)] = key
        parts = [part for pair in node.value for part in pair]
    known[id(node)] = size = 1 + sum(_size(file, part, known) for part in parts)
    if size > MOST_VALUES:
        raise UserError(
            f"{file}, line {_line(node)}: its aliases stand for more than {MOST_VALUES:,} values; undo them"
        )
    return size


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def place(option: str, yamls: Mapping[str, yaml.Node], arguments: Sequence[str]) -> str:
    """Where an option stands: file and line, to be put before its name; empty for the command line.

    What comes last on the command line counts, as when it is read. An option that stands nowhere, as one inside a list,
    is looked for under the name of what holds it.
    """
    names = option.split(".")
    for length in range(len(names), 0, -1):
        typed = f"--{'.'.join(names[:length])}"
        for argument in reversed(arguments):
            if argument == typed or argument.startswith((f"{typed}=", f"{typed}+=", f"{typed}.")):
                return ""
            file = argument.partition("=")[2] if argument.startswith("-") else argument
            if file in yamls and (found := _find(yamls[file], names[:length])):
                return f"{file}, line {_line(found[0])}: "
    return ""


def _find(node: yaml.Node, names: Sequence[str]) -> tuple[yaml.Node, yaml.Node] | None:
    """Name and value of an option in a YAML, where ``init_args`` stands between."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in BETWEEN:
            found = _find(value, names)
        elif key.value == names[0]:
            found = (key, value) if len(names) == 1 else _find(value, names[1:])
        else:
            continue
        if found is not None:
            return found
    return None


def explain(
    message: str,
    arguments: Sequence[str],
    yamls: Mapping[str, yaml.Node],
    options: Iterable[str],
    classes: Mapping[str, Sequence[str]],
) -> str:
    """One line of what the parser says in many: the innermost reason, its place, and the nearest known name.

    Args:
        message: of the parser.
        arguments: of the command line.
        yamls: files named there.
        options: every option there is.
        classes: names of classes by the option that takes one.
    """
    option, reason = _innermost(message)
    parent = f"{option}." if option else ""
    if found := re.match(r"unrecognized arguments: ([^\s=]+)", reason):
        name = found[1]
        if not name.startswith("-"):  # of a mistyped option's value, which stands behind it, nothing is repeated
            return f"{_shown(option, name)} belongs to no option; options are --name=value"
        return _unknown("--", parent + name.lstrip("-"), options)
    if found := re.search(r"(Group '\S+' |Subcommand '\w+' |)(?:does not accept option|Option) '([^']+)'", reason):
        group = found[1].split("'")[1] + "." if found[1].startswith("Group") else ""
        name = _typed(found[2] if found[1].startswith("Sub") else f"{parent}{group}{found[2]}")
        return _unknown(place(name, yamls, arguments), name, options)
    if found := re.match(rf"the following arguments are required: (?:(?:{'|'.join(COMMANDS)})\.)?(\w+)", reason):
        where = place(option or found[1], yamls, arguments)
        return f"{where}{parent}{found[1]}: is not set; set it, or --{parent}{found[1]}"
    if found := re.match(r"Unexpected config: (.*)", reason):  # one name without value is no YAML to the parser
        name = found[1].rstrip(": ")
        return f"{place(name, yamls, arguments)}{_hidden(name)}: found nothing, expected a value"
    if found := re.match(r"Key must be a string, got: (.*)\.$", reason):
        odd = ((file, name) for file, root in yamls.items() for name in _names(root))
        at = next((f"{file}, line {_line(name)}: " for file, name in odd if _is(name, found[1])), "")
        return f"{at}found {_shown('', found[1])} as a name, expected that of an option"
    if reason.startswith(('expected "subcommand"', "argument subcommand:")):
        wrong = re.search(r"invalid choice: '([^']*)'", reason)
        if arguments and arguments[0].startswith("-"):  # it may be the value of a mistyped option
            return f"command: found none in front, expected {', '.join(COMMANDS)}"
        found_one = f"found {_shown('', wrong[1])}" if wrong else "found none"
        return f"command: {found_one}, expected {', '.join(COMMANDS)}{near(wrong[1] if wrong else '', COMMANDS)}"
    where = place(option, yamls, arguments) + option
    known = classes.get(option, ())
    listed = f"; methods are {', '.join(known)}, or your own as file.Class" if option == "model.method" else ""
    if found := re.match(r"Expected a dot import path string: ?(.*)", reason):
        return f"{where}: no class is called {_shown(option, found[1])}{near(found[1], known)}{listed}"
    if found := re.match(r"Expected an? (.*?)\. Got value: ?(.*)$", reason):
        wanted = sorted(found[1].split("|"), key=lambda one: one == NONE)
        literals = [one.split("[")[1].rstrip("]") for one in wanted if "Literal[" in one]
        choices = list(dict.fromkeys(choice.strip("'") for one in literals for choice in one.split(", ")))
        expected = [", ".join(choices)] * bool(choices) + [_readable(one) for one in wanted if "Literal[" not in one]
        shown = _shown(option, found[2])
        return f"{where}: found {shown}, expected {' or '.join(expected)}{near(found[2], choices)}"
    reason = re.sub(r"\S{300,}", lambda found: f"{found[0][:LONGEST]}...", hide(reason))
    return f"{where}: {reason}{listed}" if where else reason


NOISE = re.compile(
    r"(Given value|Subtypes: |Errors:|Does not validate|Parser key \"[^\"]+\":$|Problem with given class_path"
    r"|Expected a path but|Subclass types expect|a class path \(str\)|a dict with)"
)
"""Lines of the parser that give no reason."""


def _innermost(message: str) -> tuple[str, str]:
    """The option that is wrong, and the deepest of the reasons the parser gives.

    Where a value was tried as several types, the reason is ``Expected a <type>|<type>. Got value: <value>``.
    """
    lines = [line for line in message.splitlines() if line.strip()]
    depths = [len(line) - len(line.lstrip(" -")) for line in lines]
    texts = [line.strip(" -") for line in lines]
    reasons = [i for i, text in enumerate(texts) if not NOISE.match(text)] or [len(texts) - 1]
    told = ("Expected a dot import", "Option ")

    def rank(i: int) -> tuple[bool, int, bool, int]:
        expected = texts[i].startswith(("Expected a ", "Expected an ")) and not texts[i].startswith(told)
        return texts[i].startswith("Option "), depths[i], not expected, -i

    best = max(reasons, key=rank)
    keys, depth = [], depths[best]
    for i in range(best - 1, -1, -1):
        if depths[i] < depth:
            depth = depths[i]
            keys += re.findall(r'^Parser key "([^"]+)":', texts[i])
    if alone := re.match(r'Parser key "([^"]+)": (.*)', texts[best]):  # all in one line
        keys, texts[best] = [alone[1]], alone[2]
    reason = texts[best]
    given = [(depths[i], text.partition(": ")[2]) for i, text in enumerate(texts) if text.startswith("Given value: ")]
    value = max(given)[1] if given else ""
    if nested := re.match(r"NestedArg\(key='([^']+)', val='?(.*?)'?\)$", value):
        value = nested[2]
        if depths[best] <= min(d for d, t in zip(depths, texts, strict=True) if d and not NOISE.match(t)):
            keys.insert(0, nested[1])  # the reason stands above the options of the class
    if reason.startswith("Expected a") and "dot import" not in reason and "Got value" not in reason:
        tried = [texts[i] for i in reasons if depths[i] == depths[best] and texts[i].startswith("Expected a")]
        reason = f"Expected a {'|'.join(re.sub(r'^Expected an? ', '', one) for one in tried)}. Got value: {value}"
    return _typed(".".join(reversed(keys))), reason


def _unknown(where: str, name: str, options: Iterable[str]) -> str:
    if name in RENAMED:
        return f"{where}{name}: is now called {RENAMED[name]}; rename it"
    return f"{where}{_hidden(name)}: no such option{near_option(name, options, where if where == '--' else '')}"


def _names(node: yaml.Node) -> Iterator[yaml.Node]:
    """Every name in a YAML, in its order."""
    for part in node.value if not isinstance(node, yaml.ScalarNode) else ():
        if isinstance(part, tuple):
            yield part[0]
            part = part[1]
        yield from _names(part)


def _is(name: yaml.Node, value: str) -> bool:
    """Whether a name stands for a value that is no text, as Python shows it."""
    return _kind(name) != "a text" and isinstance(name.value, str) and str(yaml.safe_load(name.value)) == value


def interpolation(
    error: OmegaConfBaseException, arguments: Sequence[str], yamls: Mapping[str, yaml.Node], options: Iterable[str]
) -> str:
    """One line of what is wrong with a ``${...}``."""
    lines = str(error).splitlines()
    full = next((line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("full_key:")), "")
    option = _typed(full.partition(".")[2])
    texts = [one[1].value for root in yamls.values() if (one := _find(root, option.split(".")))]
    text = next((one for one in reversed(texts) if isinstance(one, str) and "${" in one), "${...}")
    why = lines[0]
    if found := re.search(r"resolved to '\w+\.([^']*)'", why):
        other = _typed(found[1])
        why, remedy = f"there is no {other}", f"name another option by its path{near_option(other, options)}"
    elif "Recursive interpolation" in why or f"${{{full.partition('.')[2]}}}" in text or f"${{{option}}}" in text:
        why, remedy = "it leads back to itself", "write the value"
    else:
        why = re.sub(r"^\w+ raised while resolving interpolation: ", "", why).strip('"')
        remedy = "write ${option} with its path, ${oc.env:NAME}, or the value"
    where = place(option, yamls, arguments)
    return f"{where}{option}: {_shown(option, text)} stands for nothing: {why}; {remedy}"


def near(name: str, known: Iterable[str], dashes: str = "", cutoff: float = 0.7) -> str:
    """``; did you mean ...?``, or nothing where no known name is like it."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), 1, cutoff)
    return f"; did you mean {dashes}{by_lower[found[0]]}?" if found else ""


def near_option(name: str, known: Iterable[str], dashes: str = "") -> str:
    """The same for an option: of those that stand beside it, then of the last names of all, then of all."""
    known = [one for one in known if one != name and not one.endswith(".help")]
    parent, _, last = name.rpartition(".")
    beside = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == parent}
    if found := difflib.get_close_matches(last, list(beside), 1, 0.6):
        return f"; did you mean {dashes}{beside[found[0]]}?"
    elsewhere = [one for one in known if one.rpartition(".")[2] == last and one.startswith(name.split(".")[0])]
    return f"; did you mean {dashes}{elsewhere[0]}?" if elsewhere else near(name, known, dashes, 0.8)


def option_names(prefix: str, of: type, seen: tuple[type, ...] = ()) -> Iterator[str]:
    """The options of a class and all its subclasses, and of what they are given in turn, with dots between.

    Args:
        prefix: option that takes the class.
        of: the class.
        seen: classes on the way here.
    """
    for kind in (of, *subclasses(of)):
        try:
            hints = get_type_hints(getattr(kind, "__init__"))  # noqa: B009 - of the class
        except (NameError, TypeError):  # of somebody else's class
            hints = {}
        for name in inspect.signature(kind).parameters:
            yield (option := f"{prefix}.{name}")
            for inner in (hints.get(name), *get_args(hints.get(name))):
                if inspect.isclass(inner) and inner.__module__.startswith("viker_lightning") and inner not in seen:
                    yield from option_names(option, inner, (*seen, of, inner))


def subclasses(of: type) -> list[type]:
    """All classes below one."""
    found: list[type] = []
    for below in list[type](type.__subclasses__(of)):
        found += [below, *subclasses(below)]
    return found


def _typed(key: str) -> str:
    """A key as it is typed: without ``init_args``."""
    return ".".join(part for part in key.split(".") if part not in BETWEEN)


def _hidden(name: str) -> str:
    """A name as it may be repeated: a token may stand where one should."""
    name = hide(name)
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def _shown(option: str, value: str) -> str:
    """A value as it may be repeated."""
    shown = str(hide_in({option.rpartition(".")[2]: value}).popitem()[1])
    return repr(shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}...")


KINDS = {"NoneType": "null", "float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}
"""Types in plain words."""


def _readable(text: str) -> str:
    """A type in plain words."""
    text = CLASSES.sub(lambda found: found[1] or "", text)
    return KINDS.get(text, " ".join(text.split()))


def check_run(config: Any) -> None:
    """Looks at what the parser and the trainer accept and a run would stumble on.

    Args:
        config: of a command.

    Raises:
        UserError: naming option, value and what was expected.
    """
    if config.get("ckpt_path") == "":
        raise UserError("ckpt_path: found nothing, expected a file or 'last'; leave it out to start afresh")
    trainer = config.trainer
    check_least("trainer", 0, gradient_clip_val=trainer.gradient_clip_val)
    check_least("trainer", 1, accumulate_grad_batches=trainer.accumulate_grad_batches)
    check_least("trainer", 0, log_every_n_steps=trainer.log_every_n_steps)
    seed = config.seed_everything
    if seed is None or (not isinstance(seed, bool) and not 0 <= seed <= MOST_SEED):
        raise UserError(f"seed_everything: found {'nothing' if seed is None else seed}, expected 0 to {MOST_SEED}")
    run = str(trainer.default_root_dir or "").strip()
    if not run:
        raise UserError("trainer.default_root_dir: found nothing, expected the folder of the run, e.g. runs/run")
    try:
        taken = next((one for one in (Path(run), *Path(run).parents) if one.exists() and not one.is_dir()), None)
    except (OSError, ValueError) as error:
        reason = f"cannot be a folder ({getattr(error, 'strerror', error)})"
        raise UserError(f"trainer.default_root_dir: {_shown('', run)} {reason}; give another") from error
    if taken is not None:
        raise UserError(f"trainer.default_root_dir: {taken} is a file, expected a folder; give another")
