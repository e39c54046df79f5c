"""What came of the attacks on a run: ``attacks.json``, and a table of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from viker_lightning.jobs.job import State
from viker_lightning.reporting.attacked import condition, more_than_gold, worst
from viker_lightning.reporting.section import Section, terminal
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs.names import ATTACKED, ATTACKS
from viker_lightning.storage.secrets import hide

from .attempt import Attempt
from .base import Attack
from .conditions import brought_back, conditions, sentence, shared
from .material import Material
from .subject import Name
from .unit import Unit


def write_record(folder: Path, units: Sequence[Unit], run: str, gold: str, material: Material) -> dict[str, Any]:
    """Writes ``attacks.json``, of these units.

    Returns:
        ``run``, ``gold``, ``people`` (how many were attacked), ``seed``, ``material`` (hash of whom it is about);
        ``attacks``: by name ``about``, ``source``, ``axis``, ``says``, ``settings``, by subject ``state``, ``why`` it
        failed, ``command`` and ``seconds``, and ``conditions``; ``back`` of run and gold and ``sentence``, of the
        attacks ``counted``, under those of their conditions that both went through.
    """
    found: dict[str, dict[Name, Sequence[Attempt]]] = {}
    attacks: dict[str, Any] = {}
    for unit in units:
        name, subject, state, noted = unit.attack.name, unit.subject.name, unit.state(), unit.note()
        entry = attacks.setdefault(name, _described(unit.attack))
        entry["on"][subject] = {
            "state": state.value,
            "why": unit.complaint() if state == State.FAILED else "",
            "command": unit.command,
            "seconds": noted.get("seconds"),
        }
        found.setdefault(name, {})
        if state in (State.FINISHED, State.FAILED) and (attempts := unit.attempts()):
            found[name][subject] = attempts
    kinds = {unit.attack.name: unit.attack for unit in units}
    for name, of in found.items():
        attacks[name]["conditions"] = conditions(kinds[name], of)
    counted, back = _back(kinds, found)
    record = {
        "run": hide(run),
        "gold": hide(gold),
        "people": len({group.person for group in material.forget}),
        "seed": material.seed,
        "material": material.fingerprint(),
        "attacks": attacks,
        "back": back,
        "counted": counted,
        "sentence": sentence(back["run"], back.get("gold"), counted) if "run" in back else "",
    }
    (folder / ATTACKS).mkdir(parents=True, exist_ok=True)
    write_json(folder / ATTACKED, record)
    return record


def _described(attack: Attack) -> dict[str, Any]:
    """What an attack is, and on whom it was carried out, to be filled in."""
    return {
        **{key: getattr(attack, key) for key in ("about", "source", "axis", "clean", "says")},
        "settings": asdict(attack),  # type: ignore[call-overload]
        "on": {},
    }


def _back(
    kinds: Mapping[str, Attack], found: Mapping[str, Mapping[Name, Sequence[Attempt]]]
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Which attacks count, those on run and gold if there are any; and who was brought back by them."""
    says = {name: of for name, of in found.items() if kinds[name].says}
    both = {name: shared(of["run"], of["gold"]) for name, of in says.items() if {"run", "gold"} <= of.keys()}
    if both:
        run, gold = ({name: (kinds[name], pair[side]) for name, pair in both.items()} for side in (0, 1))
        return [*both], {"run": brought_back(run), "gold": brought_back(gold)}
    alone = {name: (kinds[name], of["run"]) for name, of in says.items() if "run" in of}
    return [*alone], {"run": brought_back(alone)} if alone else {}


def show(record: dict[str, Any], console: Console) -> None:
    """Shows of every attack what brings out most of the run, and of gold, of people who are kept, and no attack."""
    columns = ["attack", "condition", "as asked", "run", "gold", "more", "kept", "people back", "gold's"]
    rows = []
    for name, attack in record["attacks"].items():
        found = attack.get("conditions", [])
        clean: dict[str, Any] = next((row for row in found if row["clean"]), {})
        most, golds = worst(found), worst(found, "gold")
        if most is None:
            why = next((of["why"] for of in attack["on"].values() if of["why"]), "not carried out")
            rows.append([name, why])
            continue
        gold = golds["gold"] if golds else {}
        cells = [
            condition(most, attack["axis"]),
            _two(clean.get("run", {}), "forget") if attack["says"] else "",
            _two(most["run"], "forget") + _guessing(most["run"]),
            _two(gold, "forget") + _guessing(gold),
            f"{more_than_gold(most['run'], gold):+.2f}" if gold else "",
            _two(most["run"], "retain"),
            str(most["run"].get("back", "")),
            str(gold.get("back", "")),
        ]
        rows.append([name, *cells])
    title = "share of questions that gave a private span away; ~ by guessing"
    console.print(terminal(Section(title, columns, rows, words=["condition"])))
    if record["sentence"]:
        console.print(record["sentence"], soft_wrap=True, highlight=False)


def _guessing(of: dict[str, Any]) -> str:
    return f" ~{of['chance']:.2f}" if "chance" in of else ""


def _two(of: dict[str, Any], name: str) -> str:
    return f"{of[name]:.2f}" if of.get(name) is not None else ""
