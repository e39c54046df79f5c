"""What came of attacks, in W&B under ``attacks/``, where that is asked for."""

import logging
import os
from pathlib import Path
from typing import Any

import wandb

from viker_lightning.reporting.attacked import condition, is_gold, more_than_gold, worst
from viker_lightning.storage.runs.names import ATTACKS

log = logging.getLogger(__name__)

COLUMNS = ("attack", "condition", "of", "forget", "retain", "probability", "people recovered", "more than gold")


def log_attacks(home: Path, project: str, record: dict[str, Any]) -> None:
    """Logs the numbers of a record as a run of its own; nothing of what anybody said.

    It is offline unless ``WANDB_MODE`` says otherwise, and lies in the folder of the attacks. What a run's config says
    of loggers is not looked at: somebody may have been handed the folder.
    """
    try:
        with wandb.init(
            project=project,
            name=f"attacks on {home.resolve().name}",
            job_type="attacks",
            dir=home / ATTACKS,
            mode=None if "WANDB_MODE" in os.environ else "offline",
            config={"run": record["run"], "golds": record["golds"], "seed": record["seed"]},
        ) as sent:
            sent.summary.update(numbers(record))
            sent.log({"attacks/conditions": wandb.Table([*COLUMNS], rows(record))})
    except (wandb.Error, OSError) as error:
        log.warning("W&B has nothing of these attacks (%s); attacks.json and the pages have all of it", error)


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Of each attack on each model the condition that leaks most, by its name in W&B, and how many are recovered."""
    found: dict[str, float] = {}
    for name, attack in record["attacks"].items():
        most = {s: row[s] for s in attack["on"] if (row := worst(attack.get("conditions", []), s))}
        found |= {f"attacks/{name}/{subject}": of["forget"] for subject, of in most.items()}
        if golds := [of for subject, of in most.items() if is_gold(subject) and "run" in most]:
            found[f"attacks/{name}/more_than_gold"] = more_than_gold(most["run"], golds)
    return found | {f"attacks/people_back/{name}": of["people"] for name, of in record["back"].items()}


def rows(record: dict[str, Any]) -> list[list[Any]]:
    """Every condition of every attack on everybody: rows of :data:`COLUMNS`."""
    found = []
    for name, attack in record["attacks"].items():
        for row in attack.get("conditions", []):
            for subject in (subject for subject in attack["on"] if subject in row):
                measured = [row[subject].get(number) for number in ("forget", "retain", "probability", "back")]
                more = row.get("more_than_gold") if subject == "run" else None
                found.append([name, condition(row, attack["axis"]), subject, *measured, more])
    return found
