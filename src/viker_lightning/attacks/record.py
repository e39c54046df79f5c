"""What came of the attacks on a run: ``attacks.json``, and a table of it."""

from __future__ import annotations

from collections.abc import Sequence
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
        about = {key: getattr(unit.attack, key) for key in ("about", "source", "axis", "clean", "says")}
        settings = asdict(unit.attack)  # type: ignore[call-overload]
        entry = attacks.setdefault(name, about | {"settings": settings, "on": {}})
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
    both = [name for name, of in found.items() if kinds[name].says and {"run", "gold"} <= of.keys()]
    for name in both:
        found[name]["run"], found[name]["gold"] = shared(found[name]["run"], found[name]["gold"])
    told = both or [name for name, of in found.items() if kinds[name].says and "run" in of]
    back = {
        subject: brought_back({name: (kinds[name], found[name][subject]) for name in told})
        for subject in (("run", "gold") if both else ("run",) if told else ())
    }
    record = {
        "run": hide(run),
        "gold": hide(gold),
        "people": len({group.person for group in material.forget}),
        "seed": material.seed,
        "material": material.fingerprint(),
        "attacks": attacks,
        "back": back,
        "counted": told,
        "sentence": sentence(back["run"], back.get("gold"), told) if "run" in back else "",
    }
    (folder / ATTACKS).mkdir(parents=True, exist_ok=True)
    write_json(folder / ATTACKED, record)
    return record


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
