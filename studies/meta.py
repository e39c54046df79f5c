"""A metric of metrics: which scores deserve trust? ``python studies/meta.py``; see ``--help``.

A pool of models, some trained with the people to be forgotten, some without them, some unlearned, is asked as it is,
quantised and relearned, and every score of the table is judged by what it makes of them (OpenUnlearning, arXiv
2506.12618, section 4, as gnueaj/unlearning-depth-score has it in scripts/meta_eval_faithfulness.py and
meta_eval_robustness.py):

- *faithful*: the area under the ROC curve with which the score tells models trained with the people from those without;
- *Q*: what quantisation leaves of what the score says is known, of unlearned models;
- *R*: whether gold, which never met the people, gains as much by relearning, by the score, as unlearned models do.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import torch

from viker_lightning.attacks.kinds.quantise import round_layers
from viker_lightning.attacks.kinds.relearn import Relearn
from viker_lightning.attacks.subject import Subject
from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import Split
from viker_lightning.errors import UserError
from viker_lightning.evaluation import Prediction, note_form, predict, summarise
from viker_lightning.grids import Cell, read_grid
from viker_lightning.grids.grid import config_option
from viker_lightning.jobs.runner import run_jobs
from viker_lightning.metrics import FORGOTTEN, KNOWLEDGE, NUMBERS, REFUSALS, Number, auroc
from viker_lightning.models import MLLM, Lora
from viker_lightning.reporting import section
from viker_lightning.reporting.section import Section
from viker_lightning.storage.files import write_json, write_text
from viker_lightning.storage.runs import read_run
from viker_lightning.storage.runs.write import read_predictions, write_predictions
from viker_lightning.storage.sources import PACKAGE, code_fingerprint, fingerprint, with_imports
from viker_lightning.terminal.failures import ending_in_one_line
from viker_lightning.terminal.progress import track
from viker_lightning.terminal.shown import Plain
from viker_lightning.training.finished import FinishedRun
from viker_lightning.training.published import protocol_of

Group = Literal["with", "without", "unlearned"]
GROUPS: dict[str, Group] = {"vanilla": "with", "gold": "without", "unlearn": "unlearned"}
"""What a model of the pool is, by the stage of its run."""

Condition = Literal["as it is", "quantised", "relearned"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

BITS = 4
TEACH = Relearn(steps=(0, 20), lr=1e-3, batch_size=24)
"""What relearning is: so many steps on the forget set, from the merged weights."""

UTILITY = 0.8
"""Unlearned models that know less of the people who are kept than this share of what gold knows are left out of Q and
R: breaking a model is no unlearning (UDS, utility filter)."""

LEAST = 1e-8
"""A smaller number is 0 (UDS scripts/meta_eval_robustness.py)."""

Values = Mapping[str, Mapping[Condition, float]]
"""What a score says of each model of a pool in each condition, by the model's title."""


@dataclass(frozen=True)
class Member:
    """A model of the pool.

    Attributes:
        title: of its run, for people.
        group: whether it was trained with the people, without them, or unlearned them.
        folder: of its run.
        command: what makes the run.
        utility: what it knows of the people who are kept, 0 to 1.
    """

    title: str
    group: Group
    folder: Path
    command: str
    utility: float


def shows(score: Number) -> Literal["high", "low", "nothing"]:
    """Which values on the forget set say that people are known; those of no knowledge are judged as they are."""
    if not score.knowledge:
        return "nothing"
    return "low" if score.good in ("high", "gold") else "high"


def shown_knowledge(score: Number, value: float) -> float:
    """What a score says of how well the people are known: high where they are, for every score.

    Args:
        score: an entry of the table.
        value: its value on a split of the people to be forgotten.
    """
    return (0.0 if score.range == "<= 0" else 1.0) - value if shows(score) == "low" else value


def threshold(known: Sequence[float], unknown: Sequence[float]) -> float:
    """The value that parts models trained with the people from those without with fewest errors, the lowest of several.

    Args:
        known: knowledge shown by models trained with the people; a value at the threshold counts as known.
        unknown: the same of models trained without.

    Returns:
        Halfway between two neighbouring values; infinite if all are the same (UDS, per-metric filter).
    """
    values = sorted({*known, *unknown})
    cuts = [(one + two) / 2 for one, two in pairwise(values)]
    return max(cuts, key=lambda c: sum(v >= c for v in known) + sum(v < c for v in unknown), default=math.inf)


def kept_by_quantisation(before: float, after: float) -> float:
    """Q = min(after / before, 1): 1 if the score shows no less knowledge after quantisation than before.

    UDS scripts/meta_eval_robustness.py, Q of one model, within 0 to 1; 1 if nothing was shown before. That knowledge
    comes back it does not punish, which :func:`alike` does.
    """
    return 1.0 if abs(before) < LEAST else _within(after / before)


def kept_by_relearning(gold: float, unlearned: float) -> float | None:
    """R = min(gain of gold / gain of the unlearned model, 1): 1 if the unlearned one learns no faster than gold.

    Below 1 the score had called forgotten what comes back sooner than it is learned. UDS
    scripts/meta_eval_robustness.py, R of one model, within 0 to 1.

    Args:
        gold: knowledge shown after relearning less that before, of gold.
        unlearned: the same of an unlearned model.

    Returns:
        ``None`` if the unlearned model gains nothing: there is nothing to compare (there a loss makes it 0, or a share
        of losses).
    """
    return None if unlearned < LEAST else _within(gold / unlearned)


def alike(one: float, two: float) -> float:
    """1 - |a - b| / (|a| + |b|), 0 to 1: Q and R that punish a change either way, as the page of UDS has them."""
    whole = abs(one) + abs(two)
    return 1.0 if whole < LEAST else 1 - abs(one - two) / whole


def harmonic(one: float, two: float) -> float:
    """Harmonic mean of two numbers >= 0."""
    return 2 * one * two / (one + two) if one + two else 0.0


def _within(ratio: float) -> float:
    return max(0.0, min(ratio, 1.0))


def judge(values: Values, pool: Sequence[Member], gold: Member) -> dict[str, Any]:
    """Judges a score by what it says of the pool.

    Args:
        values: knowledge shown, see :func:`shown_knowledge`, of models of the pool and of gold; of a model it has no
            value of, nothing is there.
        pool: the models; of each group that counts, those that have a value.
        gold: the model that unlearned ones are compared with; it is not in the pool.

    Returns:
        ``faithful``: area under the ROC curve, 1 is best, .5 is chance, below that it says the contrary; ``quantised``
        and ``relearned``: the same of the pool after that; ``Q``, ``R`` and ``robust``, their harmonic mean, 0 to 1, 1
        is best, means over unlearned models that are whole and that the score calls forgotten, ``models`` of them;
        ``Q_both_ways`` and ``R_both_ways``. What cannot be said is ``None``.
    """
    there = {group: [m for m in pool if m.group == group and m.title in values] for group in GROUPS.values()}
    row: dict[str, Any] = {}
    for name, condition in zip(("faithful", "quantised", "relearned"), CONDITIONS, strict=True):
        both = [[values[m.title][condition] for m in there[group]] for group in ("with", "without")]
        row[name] = auroc(*both) if all(both) else None
    known, unknown = ([values[m.title]["as it is"] for m in there[group]] for group in ("with", "without"))
    cut = threshold(known, unknown)
    whole = [m for m in there["unlearned"] if m.utility >= UTILITY * gold.utility]
    forgot = [values[m.title] for m in whole if values[m.title]["as it is"] <= cut]
    row["threshold"] = cut if math.isfinite(cut) else None
    row["models"] = len(forgot)
    pairs = [(v["as it is"], v["quantised"]) for v in forgot]
    gains = [v["relearned"] - v["as it is"] for v in forgot]
    row["Q"] = _mean([kept_by_quantisation(*pair) for pair in pairs])
    row["Q_both_ways"] = _mean([alike(*pair) for pair in pairs])
    row["R"] = row["R_both_ways"] = None
    if gold.title in values:
        of_gold = values[gold.title]["relearned"] - values[gold.title]["as it is"]
        row["R"] = _mean([r for gain in gains if (r := kept_by_relearning(of_gold, gain)) is not None])
        row["R_both_ways"] = _mean([alike(of_gold, gain) for gain in gains])
    row["robust"] = None if row["Q"] is None or row["R"] is None else harmonic(row["Q"], row["R"])
    return row


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def judge_all(summaries: Mapping[str, Mapping[Condition, Any]], pool: Sequence[Member], gold: Member) -> dict[str, Any]:
    """Judges every score of the table on the splits of the people to be forgotten.

    Args:
        summaries: numbers by split, as :func:`~viker_lightning.evaluation.summarise` has them, of the pool and of gold,
            by title and condition.
        pool: the models.
        gold: what unlearned ones are compared with.

    Returns:
        By split and score what :func:`judge` says, with ``shows``: whether ``high`` or ``low`` says known, or
        ``nothing``.
    """
    found: dict[str, Any] = {}
    for split in FORGOTTEN:
        for score in NUMBERS:
            values: dict[str, dict[Condition, float]] = {}
            for title, conditions in summaries.items():
                read = {c: numbers.get(split, {}).get(score.name) for c, numbers in conditions.items()}
                if all(value is not None and math.isfinite(value) for value in read.values()):
                    values[title] = {c: shown_knowledge(score, value) for c, value in read.items()}
            if {m.group for m in pool if m.title in values} >= {"with", "without"}:
                found.setdefault(split, {})[score.name] = {"shows": shows(score), **judge(values, pool, gold)}
    return found


def answers(member: Member, condition: Condition, data: Benchmark, gold: Subject, kept: Path) -> list[Prediction]:
    """What a model answers to all questions about the people to be forgotten.

    Args:
        member: the model.
        condition: what is done to it before it is asked.
        data: the benchmark, set up for unlearning.
        gold: the model it is compared with, for KL(gold || model).
        kept: folder in which answers are kept, by model, condition, data and gold.
    """
    subject = Subject("run", str(member.folder), member.folder)
    made_of = f"{subject.fingerprint()}/{gold.fingerprint()}/{data.fingerprint()}/{condition}/{BITS}/{TEACH!r}"
    attacks = (PACKAGE / "attacks/kinds" / name for name in ("quantise.py", "relearn.py"))
    code = {"meta.py": Path(__file__), **with_imports(*attacks)}
    made_of += f"/{fingerprint(code)}/{code_fingerprint(frozenset())}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    file = kept / f"{member.folder.name}-{condition.replace(' ', '-')}-{digest}.parquet"
    if file.is_file():
        try:
            return [p for _, p in read_predictions(file)]
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            raise UserError(f"{file}: holds no answers ({str(error).splitlines()[0]}); remove it") from error
    mllm = subject.load()
    if condition == "quantised":
        round_layers(mllm, BITS)
    elif condition == "relearned":
        teach(mllm, data)
    groups = [g for split in (Split.FORGET, Split.TEST) for g in data.evaluation(split)]
    found = predict(mllm, groups, gold.load(), protocol_of(data))
    note_form(found, data.grammar, REFUSALS)
    kept.mkdir(parents=True, exist_ok=True)
    write_predictions(file, [(condition, p) for p in found])
    return found


def teach(mllm: MLLM, data: Benchmark) -> None:
    """Relearning, see :data:`TEACH`; the adapter it trains is left beside the weights."""
    torch.manual_seed(0)
    mllm.adapt(Lora(r=TEACH.rank, alpha=2 * TEACH.rank))
    for _ in TEACH.train(mllm, data.people(data.forget_ids), 0):
        pass


def gather_pool(cells: Sequence[Cell], gold: str) -> tuple[Member, list[Member]]:
    """Gold and the pool, from runs that are finished.

    Args:
        cells: of the grid.
        gold: the row of the gold model.

    Raises:
        UserError: if nobody is retained whose knowledge could be compared, or a group is missing.
    """
    members: list[tuple[Cell, Member]] = []
    for cell in cells:
        known = read_run(cell.folder).results["after"].get("retain", {})
        utility = next((known[name] for name in KNOWLEDGE if name in known), None)
        if utility is None:
            raise UserError(f"{cell.folder}: nobody who is kept was asked about; evaluate the split retain, too")
        group = GROUPS[str(config_option(cell.config, "data.stage"))]
        members.append((cell, Member(cell.title, group, cell.folder, cell.command, utility)))
    pool = [member for cell, member in members if cell.row != gold]
    if missing := {"with", "without"} - {member.group for member in pool}:
        raise UserError(
            f"the pool has no model trained {missing.pop()} the people; give the grid such a row beside {gold!r}"
        )
    return next(member for cell, member in members if cell.row == gold), pool


def measure_pool(cells: Sequence[Cell], gold_row: str, kept: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Asks all models of a pool in all conditions and judges the scores.

    Args:
        cells: finished ones.
        gold_row: the row of the gold model.
        kept: folder in which answers are kept.

    Returns:
        The record, ``gold``, ``pool``, ``settings`` and ``scores`` (see :func:`judge_all`); and the numbers it is made
        of, by model, condition, split and score.
    """
    gold, pool = gather_pool(cells, gold_row)
    data, beside = FinishedRun.open(gold.folder).data(), Subject("gold", str(gold.folder), gold.folder)
    reference = answers(gold, "as it is", data, beside, kept)
    summaries: dict[str, dict[Condition, Any]] = {}
    for member in track([gold, *pool], "asking the pool", 1 + len(pool), "models"):
        summaries[member.title] = {
            condition: summarise(
                answers(member, condition, data, beside, kept), reference, None, protocol_of(data), data.paired
            )
            for condition in CONDITIONS
        }
    everybody = [
        {"title": m.title, "group": m.group, "utility": m.utility, "command": m.command} for m in [gold, *pool]
    ]
    settings = {"bits": BITS, "relearning": repr(TEACH), "utility": UTILITY, "data": data.root}
    scores = judge_all(summaries, pool, gold)
    return {"gold": gold.title, "pool": everybody, "settings": settings, "scores": scores}, {**summaries}


COLUMNS = {
    "faithful": "faithful",
    "quantised": "quantised",
    "relearned": "relearned",
    "Q": "Q",
    "R": "R",
    "robust": "robust",
    "models": "models",
}


def page(record: Mapping[str, Any]) -> str:
    """The record as Markdown: a table for each split, most faithful scores first.

    Args:
        record: of :func:`measure_pool`.
    """
    counts = {
        group: sum(m["group"] == group for m in record["pool"]) - (group == "without") for group in GROUPS.values()
    }
    about = [
        "- **shows**: which values say that the people are known; *nothing*: the score claims nothing of it.",
        "- **faithful**: area under the ROC curve between models with and without, 1 is best, .5 is chance.",
        "- **quantised**, **relearned**: the same after that was done to all of them.",
        "- **Q**: knowledge shown after 4-bit quantisation over that before, at most 1;",
        "  **R**: gain of gold by relearning over that of the unlearned model, at most 1; **robust**: their",
        "  harmonic mean. All over the unlearned **models** that are whole and that the score calls forgotten.",
    ]
    sections = []
    for split, scores in record["scores"].items():
        order = sorted(scores.items(), key=lambda item: (item[1]["shows"] == "nothing", -item[1]["faithful"]))
        rows = [
            [f"`{name}`", row["shows"], *(str(row[k]) if k == "models" else _cell(row[k]) for k in COLUMNS)]
            for name, row in order
        ]
        sections.append(Section(split, ["score", "shows", *COLUMNS.values()], rows))
    return section.markdown(
        [
            "# Which scores deserve trust",
            f"{counts['with']} models trained with the people to be forgotten, {counts['without']} without,\n"
            f"{counts['unlearned']} unlearned; data {record['settings']['data']}; gold beside the pool is another "
            "model.",
            "\n".join(about),
            *sections,
        ]
    )


def beside(record: Mapping[str, Any], split: str = "forget") -> dict[str, str]:
    """What is to stand beside each score where it is described: how faithful and how robust it is, or a dash.

    Args:
        record: of :func:`measure_pool`.
        split: of which people's questions.
    """
    rows = record["scores"].get(split, {})
    return {name: f"{_cell(row['faithful'])} / {_cell(row['robust'])}" for name, row in rows.items()}


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> None:
    """The command line; errors a user can fix end in one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python studies/meta.py", description="run a pool of models and judge every score by it"
    )
    parser.add_argument("grid", type=Path, nargs="?", default=Path("experiments/meta.yaml"))
    parser.add_argument("--scale", default="mini")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=None, help="runs at a time; by default one a GPU or core")
    parser.add_argument("--runs", type=Path, default=Path("runs/meta"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    given = parser.parse_args(arguments)
    with ending_in_one_line():
        grid = read_grid(given.grid, given.scale, given.seeds)
        if not grid.gold:
            raise UserError(f"{given.grid}: no row is called the gold one; add 'gold' to its scale")
        cells = grid.cells(given.runs)
        if failed := run_jobs(cells, given.jobs, Plain()):
            raise UserError(f"{len(failed)} of {len(cells)} runs failed: {', '.join(c.title for c in failed)}")
        record, values = measure_pool(cells, grid.gold, given.runs / "answers")
        given.results.mkdir(parents=True, exist_ok=True)
        write_json(given.results / "meta.json", record | {"note": grid.note})
        write_json(given.results / "meta-values.json", values)
        write_text(given.results / "meta.md", page(record))
        files = [given.results / name for name in ("meta.md", "meta.json")]
        print(f"{files[0]} says which scores deserve trust; {files[1]} has more, and the runs")


if __name__ == "__main__":
    main()
