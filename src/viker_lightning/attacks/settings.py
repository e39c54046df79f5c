"""Which attacks there are, and with what settings: their own, those for a first look, or those of a YAML."""

import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from viker_lightning.errors import UserError, short
from viker_lightning.storage.packaged_configs import config_path
from viker_lightning.storage.yaml_files import yaml_values

from .base import Attack
from .kinds.adapter import RemoveAdapter
from .kinds.ask import AskOtherwise
from .kinds.choose import ChooseSpan
from .kinds.depth import Depth
from .kinds.difference import Difference
from .kinds.lens import Lens
from .kinds.membership import Membership
from .kinds.noise import UniversalNoise
from .kinds.probe import Probe
from .kinds.quantise import Quantise
from .kinds.relearn import Relearn
from .kinds.sample import Sample
from .kinds.show import ShowOtherwise

KINDS: tuple[type[Attack], ...] = (
    *(Relearn, Quantise, Sample, AskOtherwise, ShowOtherwise, UniversalNoise, Difference),
    *(ChooseSpan, Membership, Lens, Probe, Depth, RemoveAdapter),
)
CLASSES: dict[str, type[Attack]] = {kind.name: kind for kind in KINDS}
"""The attacks of this package, by name: what brings a person back, then what only looks inside."""


def chosen(only: Sequence[str], quick: bool, file: Path | None) -> list[Attack]:
    """The attacks to carry out.

    Args:
        only: names, or class paths of one's own attacks (``mine.MyAttack``); none for all of this package but those
            that are costly.
        quick: whether with a small budget.
        file: a YAML that has settings by name of an attack, or the name of one that comes with the package
            (``viker_lightning:attacks/mini.yaml``); a small budget is not made large again by it.

    Raises:
        UserError: if there is no such attack or setting.
    """
    kinds = {name: _kind(name) for name in only or (name for name, kind in CLASSES.items() if not kind.costly)}
    given = settings_of(file) if file else {}
    known = {**CLASSES, **{kind.name: kind for kind in kinds.values()}}
    for name in given:
        if name not in known:
            raise UserError(f"{file}: found settings of {name!r}, expected {', '.join(known)}")
    return [_set(kind.quick() if quick else kind(), given.get(kind.name, {}), file) for kind in kinds.values()]


def every(only: Sequence[str], quick: bool, file: Path | None) -> list[Attack]:
    """All attacks of this package, those that are costly too, and those of one's own that are named."""
    return chosen([*CLASSES, *(name for name in only if name not in CLASSES)], quick, file)


def settings_of(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """The settings in a YAML, by name of an attack; one of the package has a name, as every config of it."""
    found = yaml_values(Path(config_path(str(file))))
    if not isinstance(found, dict) or not all(isinstance(values, dict) for values in found.values()):
        raise UserError(
            f"{file}: found {short(str(found))}, expected settings by name of an attack (relearn: lr: 1e-3)"
        )
    return found


def _kind(name: str) -> type[Attack]:
    if name in CLASSES:
        return CLASSES[name]
    try:
        found = pkgutil.resolve_name(name) if "." in name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--only: {name} cannot be imported ({error}); give module.Class") from error
    if not (isinstance(found, type) and issubclass(found, Attack)):
        raise UserError(f"--only: found {name!r}, expected {', '.join(CLASSES)}, or the class path of your own attack")
    missing = [one for one in ("name", "about", "source") if not isinstance(getattr(found, one, None), str)]
    if missing or inspect.isabstract(found) or not is_dataclass(found):
        what = f"no {missing[0]}" if missing else "not all methods" if inspect.isabstract(found) else "no dataclass"
        raise UserError(f"--only: {name} has {what}; attacks/README.md says what an attack needs")
    return found


def _set(attack: Attack, values: Mapping[str, Any], file: Path | None) -> Attack:
    known: list[str] = [field.name for field in fields(attack)] if is_dataclass(attack) else []
    usual = type(attack)()
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{file}: {attack.name} has no setting {name!r}, expected {', '.join(known) or 'none'}")
        if not _fits(value, getattr(usual, name)):
            expected = f"something like {getattr(usual, name)!r}; no number is negative or endless, no count 0"
            raise UserError(f"{file}: {attack.name}.{name}: found {value!r}, expected {expected}")
    budget = {name for name in known if getattr(attack, name) != getattr(usual, name)}  # of a first look
    made = {name: _like(value, getattr(usual, name)) for name, value in values.items() if name not in budget}
    try:
        return replace(attack, **made)  # type: ignore[type-var]
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _fits(value: Any, now: Any) -> bool:
    """Whether a value of a YAML can take the place of a setting."""
    if isinstance(now, tuple):
        return isinstance(value, list) and all(_fits(one, min(now)) for one in value)
    if isinstance(now, bool) or isinstance(value, bool):
        return isinstance(now, bool) and isinstance(value, bool)
    if isinstance(now, str):
        return isinstance(value, str)
    try:  # YAML reads 1e-3 as text
        return type(now)(value) == float(value) < inf and (
            now < 0 or type(now)(value) >= min(now, isinstance(now, int))
        )
    except (TypeError, ValueError, OverflowError):
        return False


def _like(value: Any, now: Any) -> Any:
    """The value as a setting of this kind."""
    return tuple(_like(one, now[0]) for one in value) if isinstance(now, tuple) else type(now)(value)
