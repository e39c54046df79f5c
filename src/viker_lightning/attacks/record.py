"""What came of the attacks on a run: ``attacks.json``, and a table of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from viker_lightning.jobs.job import State
from viker_lightning.reporting.attacked import condition, is_gold, more_than_gold, worst, worst_of_golds
from viker_lightning.reporting.section import Section, terminal
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs.names import ATTACKED, ATTACKS
from viker_lightning.storage.secrets import hide

from .attempt import Attempt
from .base import Attack
from .conditions import brought_back, conditions, sentence, shared
from .material import Material
from .unit import Unit


def write_record(
    folder: Path, units: Sequence[Unit], run: str, golds: Sequence[str], material: Material
) -> dict[str, Any]:
    """Writes ``attacks.json``, of these units.

    Returns:
        ``run``, ``golds``, ``people`` (how many were attacked), ``seed``, ``material`` (hash of whom it is about);
        ``attacks``: by name ``about``, ``source``, ``axis``, ``says``, ``settings``, by subject ``state``, ``why`` it
        failed, ``command`` and ``seconds``, and ``conditions``; ``back`` of run and golds and ``sentence``, of the
        attacks ``counted``, under those of their conditions that both went through.
    """
    found: dict[str, dict[str, Sequence[Attempt]]] = {}
    attacks: dict[str, Any] = {}
    for unit in units:
        name, subject, state, noted = unit.attack.name, unit.subject.label, unit.state(), unit.note()
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
    counted, back = _back(kinds, found)
    record = {
        "run": hide(run),
        "golds": [*map(hide, golds)],
        "people": len({group.person for group in material.forget}),
        "seed": material.seed,
        "material": material.fingerprint(),
        "attacks": attacks,
        "back": back,
        "counted": counted,
        "sentence": sentence(back["run"], [back[one] for one in back if is_gold(one)], counted)
        if "run" in back
        else "",
    }
    (folder / ATTACKS).mkdir(parents=True, exist_ok=True)
    write_json(folder / ATTACKED, record)
    return record


def _back(
    kinds: Mapping[str, Attack], found: Mapping[str, Mapping[str, Sequence[Attempt]]]
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Which attacks count, those on the run and all golds if there are any; and who was brought back by them."""
    says = {name: of for name, of in found.items() if kinds[name].says}
    golds = [*dict.fromkeys(label for of in says.values() for label in of if is_gold(label))]
    both = {
        name: shared({label: of[label] for label in ("run", *golds)})
        for name, of in says.items()
        if golds and {"run", *golds} <= of.keys()
    }
    if both:
        of_label = {label: {name: (kinds[name], of[label]) for name, of in both.items()} for label in ("run", *golds)}
        return [*both], {label: brought_back(of) for label, of in of_label.items()}
    alone = {name: (kinds[name], of["run"]) for name, of in says.items() if "run" in of}
    return [*alone], {"run": brought_back(alone)} if alone else {}


def show(record: dict[str, Any], console: Console) -> None:
    """Shows of every attack what leaks most of the run, and of gold, of people who are kept, and no attack."""
    columns = ["attack", "condition", "as asked", "run", "gold", "more", "kept", "people recovered", "gold's"]
    rows = []
    for name, attack in record["attacks"].items():
        found = attack.get("conditions", [])
        clean: dict[str, Any] = next((row for row in found if row["clean"]), {})
        most, golds = worst(found), worst_of_golds(found)
        if most is None:
            why = next((of["why"] for of in attack["on"].values() if of["why"]), "not carried out")
            rows.append([name, why])
            continue
        cells = [
            condition(most, attack["axis"]),
            _two(clean.get("run", {}), "forget") if attack["says"] else "",
            _two(most["run"], "forget") + _guessing(most["run"]),
            ", ".join(_two(gold, "forget") + _guessing(gold) for gold in golds),
            f"{more_than_gold(most['run'], golds):+.2f}" if golds else "",
            _two(most["run"], "retain"),
            str(most["run"].get("back", "")),
            ", ".join(str(gold["back"]) for gold in golds if "back" in gold),
        ]
        rows.append([name, *cells])
    title = "share of questions that gave a private span away; ~ by guessing, of difference by vanilla alone"
    console.print(terminal(Section(title, columns, rows, words=["condition"])))
    if record["sentence"]:
        console.print(record["sentence"], soft_wrap=True, highlight=False)


def _guessing(of: Mapping[str, Any]) -> str:
    return f" ~{of['chance']:.2f}" if "chance" in of else ""


def _two(of: Mapping[str, Any], name: str) -> str:
    return f"{of[name]:.2f}" if of.get(name) is not None else ""
