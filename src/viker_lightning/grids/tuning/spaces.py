"""Spaces of settings: which options of which methods are tuned, and between which values."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from viker_lightning.errors import UserError
from viker_lightning.grids.cells import config_values, inputs
from viker_lightning.grids.grid_file import _check_keys, _check_kind, _check_name, _check_options
from viker_lightning.storage.yaml_files import yaml_values

EDGE = 0.05
"""Share of a range, at either end, that counts as its edge."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included: their logarithms are even if ``log``; whole ones if ``int``."""

    low: float
    high: float
    log: bool = False
    int: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        return self.low <= value <= self.high

    def edge(self, value: float) -> str:
        """``low`` or ``high`` if a value lies within :data:`EDGE` of that end, of logarithms if ``log``; else empty."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        place = (at - low) / (high - low)
        return "low" if place <= EDGE else "high" if place >= 1 - EDGE else ""


@dataclass(frozen=True)
class Choices:
    """One of some values, which have an order if they are numbers."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value is among them."""
        return value in self.values

    def edge(self, value: Any) -> str:
        """``low`` or ``high`` for the first or last of numbers; empty for others, and for what has no order."""
        if any(isinstance(one, str | bool) for one in self.values):
            return ""
        return {self.values[0]: "low", self.values[-1]: "high"}.get(value, "")


Space = dict[str, Range | Choices]
"""What is tuned of a method, by option of the command line."""


@dataclass(frozen=True)
class Spaces:
    """What a file of spaces holds.

    Attributes:
        root: of the benchmark; a world is ``<root>@<seed>``.
        worlds: seeds of the worlds that are there for tuning alone.
        configs: folder of the methods' YAMLs.
        options: of every run, those of gold models included but for ``model``'s.
        methods: a space by method, which is the name of its YAML.
        gold: YAML of the model retrained without the forget set.
        attacked: methods that are to be told from gold by nobody, whose score has a part for that.
    """

    root: str
    worlds: list[int]
    configs: Path
    options: dict[str, Any]
    methods: dict[str, Space]
    gold: Path
    attacked: Sequence[str] = ()

    def config(self, method: str) -> str:
        """YAML of a method's runs."""
        return str(self.configs / f"{method}.yaml")


def read_spaces(file: Path) -> Spaces:
    """Reads a file of spaces."""
    if not file.is_file():
        raise UserError(f"{file}: does not exist; give a file of spaces, as experiments/tuning/spaces.yaml")
    content = yaml_values(file)
    needed = {"root": str, "worlds": list, "configs": str, "methods": dict}
    _check_keys(file, "", content, needed, {"options": dict, "attacked": list, "gold": str})
    _check_options(file, "options", content.get("options", {}))
    worlds, configs = content["worlds"], Path(content["configs"])
    if not worlds or not all(type(seed) is int for seed in worlds):
        raise UserError(f"{file}, worlds: found {worlds!r}, expected a list of whole numbers, one at least")
    known = sorted(one.stem for one in configs.glob("*.yaml"))
    gold = Path(content.get("gold", configs / "gold.yaml"))
    if not gold.is_file():
        raise UserError(f"{file}, gold: {gold} does not exist; give the YAML of a run with data.stage gold")
    methods = {}
    for name, space in content["methods"].items():
        _check_name(file, "methods", f"YAML in {configs} of", name, known)
        methods[name] = _space(file, f"methods.{name}", space, configs / f"{name}.yaml")
    if not methods:
        raise UserError(f"{file}, methods: found none, expected one at least; there are {', '.join(known)}")
    attacked = content.get("attacked", [])
    for name in attacked:
        _check_name(file, "attacked", "space of", name, methods)
    return Spaces(content["root"], worlds, configs, content.get("options", {}), methods, gold, attacked)


def as_json(space: Space) -> dict[str, Any]:
    """A space as plain values, for a record."""
    return {option: asdict(one) if isinstance(one, Range) else list(one.values) for option, one in space.items()}


def check_methods(named: list[str], spaces: Spaces, file: Path) -> None:
    """Checks that methods have a space."""
    for name in named:
        _check_name(file, "methods", "space of", name, spaces.methods)


def config_options(config: Path) -> dict[str, Any]:
    """Every single value of a run's YAML, by its option of the command line."""
    return {o: value for o, value in _settings(config_values(config), "") if o.rpartition(".")[2] != "class_path"}


def drawn_from(spaces: Spaces, method: str) -> dict[str, Any]:
    """What trials of a method have in common by its YAML, and by those of gold and of the vanilla model it names.

    Returns:
        Every value of the YAML but those that a trial draws (so that the best setting can be put into it) and where a
        run goes; a fingerprint of every file that these values name, and of gold's YAML.
    """
    values = {
        option: value
        for option, value in _settings(config_values(Path(spaces.config(method))), "")
        if option not in spaces.methods[method] and option != "trainer.default_root_dir"
    }
    files = [file for value in values.values() if isinstance(value, str) for file in inputs(value).items()]
    return {**values, "files": sorted([*files, *inputs(str(spaces.gold)).items()])}


def _settings(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield path, node
        return
    for name, value in node.items():
        if name == "init_args":
            yield from _settings(value, path)
        else:
            yield from _settings(value, f"{path}.{name}".lstrip("."))


def _space(file: Path, where: str, space: Any, config: Path) -> Space:
    _check_kind(file, where, space, dict)
    found: Space = {}
    for option, values in space.items():
        _check_name(file, where, f"option in {config} of", option, config_options(config))
        found[option] = _values(file, f"{where}.{option}", values)
    if not found:
        raise UserError(f"{file}, {where}: found no option, expected one at least, as model.lr")
    return found


def _values(file: Path, where: str, values: Any) -> Range | Choices:
    if isinstance(values, list):
        if len(values) < 2 or not all(isinstance(one, int | float | str) and one == one for one in values):
            raise UserError(f"{file}, {where}: found {values!r}, expected two values at least, numbers or texts")
        if all(not isinstance(one, str) for one in values) and values != sorted(set(values)):
            raise UserError(f"{file}, {where}: found {values!r}, expected numbers in rising order, each once")
        return Choices(tuple(values))
    _check_keys(file, where, values, {"low": float, "high": float}, {"log": bool, "int": bool})
    one = Range(**values)
    if one.low >= one.high or (one.log and one.low <= 0):
        least = "0 < low < high" if one.log else "low < high"
        raise UserError(f"{file}, {where}: found low {one.low} and high {one.high}, expected {least}")
    if one.int and not all(type(end) is int for end in (one.low, one.high)):
        raise UserError(f"{file}, {where}: found low {one.low} and high {one.high}, expected whole numbers (int: true)")
    return one
