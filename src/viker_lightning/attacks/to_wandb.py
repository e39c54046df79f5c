"""What came of attacks, in W&B under ``attacks/``, where the run under attack was logged there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import wandb

from viker_lightning.reporting.attacked import condition, more_than_gold, worst
from viker_lightning.runs import Run

log = logging.getLogger(__name__)

COLUMNS = ("attack", "condition", "of", "forget", "retain", "probability", "people back", "more than gold")


def log_attacks(run: Run, record: dict[str, Any]) -> None:
    """Sends the numbers of a record as a run of its own, in the project and group of the run under attack.

    It is offline where that run was. Nothing of what anybody said is sent.

    Args:
        run: what was attacked; nothing is done if its config has no W&B logger.
        record: as :func:`~viker_lightning.attacks.record.write_record` returns it.
    """
    options = logger_options(run)
    if options is None:
        return
    offline = bool(options.get("offline"))
    try:
        _send(run, record, options, offline)
    except (wandb.Error, OSError) as error:
        log.warning("W&B has nothing of these attacks (%s); attacks.json and the pages have all of it", error)


def _send(run: Run, record: dict[str, Any], options: dict[str, Any], offline: bool) -> None:
    with wandb.init(
        project=options.get("project") or "lightning_logs",
        entity=options.get("entity"),
        group=options.get("group"),
        name=f"attacks on {run.folder.resolve().name}",
        job_type="attacks",
        dir=Path(options.get("save_dir") or run.folder),
        mode="offline" if offline else None,
        config={"run": record["run"], "gold": record["gold"], "seed": record["seed"]},
    ) as sent:
        sent.summary.update(numbers(record))
        sent.log({"attacks/conditions": wandb.Table([*COLUMNS], rows(record))})


def logger_options(run: Run) -> dict[str, Any] | None:
    """Options of the W&B logger in the config of a run; ``None`` if it has none."""
    given = (run.config.get("trainer") or {}).get("logger")
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, dict) and str(one.get("class_path", "")).endswith("WandbLogger"):
            return dict(one.get("init_args") or {})
    return None


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Of each attack on each model the condition that brings out most, by its name in W&B, and how many came back."""
    found: dict[str, float] = {}
    for name, attack in record["attacks"].items():
        most = {s: row[s] for s in attack["on"] if (row := worst(attack.get("conditions", []), s))}
        found |= {f"attacks/{name}/{subject}": of["forget"] for subject, of in most.items()}
        if {"run", "gold"} <= most.keys():
            found[f"attacks/{name}/more_than_gold"] = more_than_gold(most["run"], most["gold"])
    return found | {f"attacks/people_back/{name}": of["people"] for name, of in record["back"].items()}


def rows(record: dict[str, Any]) -> list[list[Any]]:
    """Every condition of every attack on everybody: rows of :data:`COLUMNS`."""
    return [
        [name, condition(row, attack["axis"]), subject]
        + [row[subject].get(number) for number in ("forget", "retain", "probability", "back")]
        + [row.get("more_than_gold") if subject == "run" else None]
        for name, attack in record["attacks"].items()
        for row in attack.get("conditions", [])
        for subject in attack["on"]
        if subject in row
    ]
