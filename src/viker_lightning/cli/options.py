"""Options of the command line: their defaults, and in one line what is wrong with one, where, and what is near."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import override

from viker_lightning.errors import UserError, check_least
from viker_lightning.storage.packaged_configs import config_paths
from viker_lightning.storage.secrets import LONGEST, hide, hide_arguments, name_to_show, value_to_show
from viker_lightning.storage.yaml_files import BETWEEN, find_option, is_value, line_of, names_in
from viker_lightning.terminal.commands import COMMANDS, LISTS

MOST_SEED = 2**32 - 1
"""The largest seed NumPy takes."""

CLASSES = re.compile(r"<class '(?:[\w.]*\.)?(\w+)'>|(?:typing|collections\.abc)\.")
NONE = "<class 'NoneType'>"

RENAMED = {"gate.known": "gate.knowledge", "gate.shown": "gate.follows_image", "gate.asked": "gate.follows_text"}
"""Options that earlier versions called otherwise, and what they are called now."""


PRINTED = {"--print_config": "--print_config=skip_default", "--print_config=all": "--print_config="}
"""What the parser is told in place of what is typed."""


class Refused(Exception):
    """What the parser says of an option, in many lines of its own."""


class Parser(LightningArgumentParser):
    """Lightning's parser; an option counts only when written in full, and nothing is printed for one that is wrong."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    @override
    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """Reads the package's own configs, too; prints of a config what differs from the defaults, or all of it."""
        given = config_paths(sys.argv[1:] if args is None else args)
        return super().parse_args([PRINTED.get(word, word) for word in given], *more, **options)

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hands over what is wrong, in place of the usage and an exit."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise Refused(message) from ex


@dataclass
class CommandLine:
    """What was typed, the YAMLs named there, and what could have been typed: enough to say what is wrong.

    Attributes:
        arguments: of the command line.
        yamls: files named there, as trees.
        options: every option there is, as it is typed without dashes.
        classes: short names of classes by the option that takes one.
    """

    arguments: Sequence[str]
    yamls: Mapping[str, yaml.Node]
    options: Sequence[str]
    classes: Mapping[str, Sequence[str]]

    def explain(self, error: Refused | OmegaConfBaseException) -> str:
        """One line of what the parser says in many: the innermost reason, its place, and the nearest known name."""
        if isinstance(error, OmegaConfBaseException):
            return self._interpolation(error)
        option, reason = _innermost(hide_arguments(str(error)))
        for pattern, say in (
            (r"^unrecognized arguments: ?([^\s=]*)", self._unknown_argument),
            (r"(Group '\S+' |Subcommand '\w+' |)(?:does not accept option|Option) '([^']+)'", self._unknown_option),
            (rf"^the following arguments are required: (?:(?:{'|'.join(COMMANDS)})\.)?(\w+)", self._unset),
            (r"^Unexpected config: (.*)", self._without_value),
            (r"^Key must be a string, got: (.*)\.$", self._odd_name),
            (r"^(expected \"subcommand\"|argument subcommand:)", self._no_command),
            (r"^Expected a dot import path string: ?(.*)", self._no_class),
            (r"^Invalid content in sub-config file (.*\.py):", self._no_yaml),
            (r"^Expected an? (.*?)\. Got value: ?(.*)$", self._no_such_value),
        ):
            if found := re.search(pattern, reason):
                return say(option, found)
        where = self.place(option) + option
        reason = re.sub(r"\S{300,}", lambda long: f"{long[0][:LONGEST]}...", hide(reason))
        return f"{where}: {reason}{self._methods(option)}" if where else reason

    def place(self, option: str) -> str:
        """Where an option stands: file and line, to be put before its name; empty for the command line.

        What comes last on the command line counts, as when it is read. An option that stands nowhere, as one inside a
        list, is looked for under the name of what holds it.
        """
        names = option.split(".")
        for length in range(len(names), 0, -1):
            typed = f"--{'.'.join(names[:length])}"
            for argument in reversed(self.arguments):
                if argument == typed or argument.startswith((f"{typed}=", f"{typed}+=", f"{typed}.")):
                    return ""
                file = argument.partition("=")[2] if argument.startswith("-") else argument
                if file in self.yamls and (found := find_option(self.yamls[file], names[:length])):
                    return f"{file}, line {line_of(found[0])}: "
        return ""

    def _unknown_argument(self, option: str, found: re.Match[str]) -> str:
        name = found[1]
        if not name:
            return "-- stands alone; options are --name=value"
        if not name.startswith("-"):  # of a mistyped option's value, which stands behind it, nothing is repeated
            return f"{value_to_show(option, name)} belongs to no option; options are --name=value"
        return self._no_such_option("--", _under(option) + name.lstrip("-"))

    def _unknown_option(self, option: str, found: re.Match[str]) -> str:
        group = found[1].split("'")[1] + "." if found[1].startswith("Group") else ""
        name = _typed(found[2] if found[1].startswith("Sub") else f"{_under(option)}{group}{found[2]}")
        return self._no_such_option(self.place(name), name)

    def _no_such_option(self, where: str, name: str) -> str:
        if name in RENAMED:
            return f"{where}{name}: is now called {RENAMED[name]}; rename it"
        nearest = near_option(name, self.options, where if where == "--" else "")
        return f"{where}{name_to_show(name)}: no such option{nearest}"

    def _unset(self, option: str, found: re.Match[str]) -> str:
        name = _under(option) + found[1]
        return f"{self.place(option or found[1])}{name}: is not set; set it, or --{name}"

    def _without_value(self, option: str, found: re.Match[str]) -> str:  # it is no YAML to the parser
        name = found[1].rstrip(": ")
        return f"{self.place(name)}{name_to_show(name)}: found nothing, expected a value"

    def _odd_name(self, option: str, found: re.Match[str]) -> str:
        every = ((file, name) for file, root in self.yamls.items() for name in names_in(root))
        where = next((f"{file}, line {line_of(name)}: " for file, name in every if is_value(name, found[1])), "")
        return f"{where}found {value_to_show('', found[1])} as a name, expected that of an option"

    def _no_command(self, option: str, found: re.Match[str]) -> str:
        known = (*COMMANDS, *LISTS)
        expected = f"expected {', '.join(known)}"
        if self.arguments and self.arguments[0].startswith("-"):  # it may be the value of a mistyped option
            return f"command: found none in front, {expected}"
        wrong = re.search(r"invalid choice: '([^']*)'", found.string)
        shown = value_to_show("", wrong[1]) if wrong else "none"
        return f"command: found {shown}, {expected}{near(wrong[1] if wrong else '', known)}"

    def _no_class(self, option: str, found: re.Match[str]) -> str:
        where, nearest = self.place(option) + option, near(found[1], self.classes.get(option, ()))
        return f"{where}: no class is called {value_to_show(option, found[1])}{nearest}{self._methods(option)}"

    def _no_yaml(self, option: str, found: re.Match[str]) -> str:
        file = Path(found[1])
        return f"{self.place(option)}{option}: {file} is no YAML; to name a class in it, write {file.stem}.Class"

    def _no_such_value(self, option: str, found: re.Match[str]) -> str:
        wanted = sorted(found[1].split("|"), key=lambda one: one == NONE)
        literals = [one.split("[")[1].rstrip("]") for one in wanted if "Literal[" in one]
        choices = list(dict.fromkeys(choice.strip("'") for one in literals for choice in one.split(", ")))
        expected = [", ".join(choices)] * bool(choices) + [_readable(one) for one in wanted if "Literal[" not in one]
        option = self._taken_from(option)
        shown, nearest = value_to_show(option, found[2]), near(found[2], choices)
        if shown == "'None'" and NONE in wanted:  # jsonargparse writes null as text for a class within a class
            nearest = "; null is not passed on from the command line: write it in a YAML"
        return f"{self.place(option)}{option}: found {shown}, expected {' or '.join(expected)}{nearest}"

    def _taken_from(self, option: str) -> str:
        """The option whose value it has, where a YAML says ``${...}``; else the option itself."""
        for node in self.yamls.values() if not self.place(f"--{option}") else ():
            there = find_option(node, option.split("."))
            if there and (other := re.fullmatch(r"\$\{([\w.]+)\}", str(there[1].value))):
                return other[1]
        return option

    def _methods(self, option: str) -> str:
        if option != "model.method":
            return ""
        return f"; methods are {', '.join(self.classes[option])}, or your own as file.Class"

    def _interpolation(self, error: OmegaConfBaseException) -> str:
        """What is wrong with a ``${...}``."""
        lines = str(error).splitlines()
        full = next((line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("full_key:")), "")
        option = _typed(full.partition(".")[2])
        texts = [one[1].value for root in self.yamls.values() if (one := find_option(root, option.split(".")))]
        text = next((one for one in reversed(texts) if isinstance(one, str) and "${" in one), "${...}")
        why = lines[0]
        if found := re.search(r"resolved to '\w+\.([^']*)'", why):
            other = _typed(found[1])
            why, remedy = f"there is no {other}", f"name another option by its path{near_option(other, self.options)}"
        elif "Recursive interpolation" in why or f"${{{full.partition('.')[2]}}}" in text or f"${{{option}}}" in text:
            why, remedy = "it leads back to itself", "write the value"
        else:
            why = re.sub(r"^\w+ raised while resolving interpolation: ", "", why).strip('"')
            remedy = "write ${option} with its path, ${oc.env:NAME}, or the value"
        return f"{self.place(option)}{option}: {value_to_show(option, text)} stands for nothing: {why}; {remedy}"


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
    best = _deepest(texts, depths, reasons)
    keys = _keys_above(texts, depths, best)
    if alone := re.match(r'Parser key "([^"]+)": (.*)', texts[best]):  # all in one line
        keys, texts[best] = [alone[1]], alone[2]
    reason = texts[best]
    given = [(d, t.partition(": ")[2]) for d, t in zip(depths, texts, strict=True) if t.startswith("Given value: ")]
    value = max(given)[1] if given else ""  # the deepest that the parser names
    if nested := re.match(r"NestedArg\(key='([^']+)', val='?(.*?)'?\)$", value):
        value = nested[2]
        if depths[best] <= min(d for d, t in zip(depths, texts, strict=True) if d and not NOISE.match(t)):
            keys.insert(0, nested[1])  # the reason stands above the options of the class
    if reason.startswith("Expected a") and "dot import" not in reason and "Got value" not in reason:
        tried = [texts[i] for i in reasons if depths[i] == depths[best] and texts[i].startswith("Expected a")]
        types = "|".join(re.sub(r"^Expected an? ", "", one) for one in tried)
        reason = f"Expected a {types}. Got value: {value}"
    return _typed(".".join(reversed(keys))), reason


def _deepest(texts: Sequence[str], depths: Sequence[int], reasons: Iterable[int]) -> int:
    """The reason to be told: of an option, or the deepest, rather one that expects no type, and the first of these."""
    others = ("Expected a dot import", "Option ")

    def rank(i: int) -> tuple[bool, int, bool, int]:
        expected = texts[i].startswith(("Expected a ", "Expected an ")) and not texts[i].startswith(others)
        return texts[i].startswith("Option "), depths[i], not expected, -i

    return max(reasons, key=rank)


def _keys_above(texts: Sequence[str], depths: Sequence[int], reason: int) -> list[str]:
    """The keys of the parser that a reason stands under, innermost first."""
    keys, depth = [], depths[reason]
    for i in range(reason - 1, -1, -1):
        if depths[i] < depth:
            depth = depths[i]
            keys += re.findall(r'^Parser key "([^"]+)":', texts[i])
    return keys


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
    """The options of a class and all its subclasses, and of what they are given in turn, with dots between."""
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


def fit_options(parser: Any) -> list[str]:
    """The options of fit, preview and check, whatever the model and the data are, as they are typed without dashes."""
    commands = [parser._subcommands_action.choices[name] for name in ("fit", "preview", "check")]
    return [*dict.fromkeys(action.dest for command in commands for action in command._actions)]


def every_option(parser: Any, bases: Mapping[str, type]) -> list[str]:
    """Every option there is, as it is typed without dashes."""
    return [*fit_options(parser), *(name for option, base in bases.items() for name in option_names(option, base))]


def class_names(bases: Mapping[str, type]) -> dict[str, list[str]]:
    """Short names of the classes that an option takes."""
    return {option: sorted(one.__name__ for one in subclasses(base)) for option, base in bases.items()}


def _under(option: str) -> str:
    return f"{option}." if option else ""


def _typed(key: str) -> str:
    """A key as it is typed: without ``init_args``."""
    return ".".join(part for part in key.split(".") if part not in BETWEEN)


KINDS = {"NoneType": "null", "float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}
"""Types in plain words."""


def _readable(text: str) -> str:
    """A type in plain words."""
    text = CLASSES.sub(lambda found: found[1] or "", text)
    return KINDS.get(text, " ".join(text.split()))


def check_end(trainer: Any) -> None:
    """Makes sure that something ends a fit; preview and check say it among other things."""
    if trainer.max_epochs == -1 and trainer.max_steps == -1 and trainer.max_time is None:
        raise UserError("trainer.max_epochs: found -1, but no max_steps either; set one of them, or max_time")


def check_run(config: Any) -> None:
    """Looks at what the parser and the trainer accept and a run would stumble on."""
    if config.get("ckpt_path") == "":
        raise UserError("ckpt_path: found nothing, expected a file or 'last'; leave it out to start afresh")
    if config.get("weights_only") is False:
        raise UserError("weights_only: found false, but nothing is unpickled, since that can run code; leave it out")
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
        raise UserError(f"trainer.default_root_dir: {value_to_show('', run)} {reason}; give another") from error
    if taken is not None:
        raise UserError(f"trainer.default_root_dir: {taken} is a file, expected a folder; give another")
