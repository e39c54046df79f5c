"""Tables for a terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from viker_lightning.metrics import FORGOTTEN, KNOWLEDGE, NUMBERS, SPLITS, Number
from viker_lightning.storage.runs.read import Summary

from .run_scores import arrow, numbers_of
from .section import Cell, Section, terminal


def headline(summary: Summary) -> dict[str, str]:
    """The three numbers of a model, from those by split, in a few words: what it leaks or keeps, and how fluently.

    Returns:
        By ``forget``, ``retain`` and ``coherence``, as far as they were measured; the score is the share of private
        spans leaked where there are any, else ROUGE-L or multiple-choice accuracy.
    """
    found, numbers = {}, numbers_of()
    for split in ("forget", "retain"):
        score = next((numbers[score] for score in KNOWLEDGE if score in summary.get(split, {})), None)
        if score:
            found[split] = f"{split} {score.heading} {score.arrow(split)} {summary[split][score.name]:.2f}"
    score = numbers["coherence"]
    split = next((s for s in FORGOTTEN[::-1] if score.name in summary.get(s, {})), "")
    if split:
        found[score.name] = f"{score.heading} {score.arrow(split)} {summary[split][score.name]:.2f}"
    return found


def before_after_table(before: Summary, after: Summary, numbers: Iterable[Number] = NUMBERS) -> Table:
    """What a run changed: every split before and after.

    Args:
        before: numbers by split; empty if nothing was measured then.
        after: the same after it.
        numbers: what may be shown.

    Returns:
        A row a split, a column for each score of a terminal that was measured; cells are ``before → after``, or what
        there is.
    """
    title = f"{'before → after; ' if before else ''}leaked: share of private spans; ★ near gold is good"
    shown = [one for one in numbers if "terminal" in one.shown]
    used = [one for one in shown if any(one.name in after.get(split, {}) for split in SPLITS)]
    headings = [one.heading + ("" if one.good == "by split" else f" {one.arrow('test')}") for one in used]
    rows = []
    for split in SPLITS:
        if split in after:
            pairs = [(before.get(split, {}).get(one.name), after[split].get(one.name)) for one in used]
            cells = [" → ".join(f"{value:.2f}" for value in pair if value is not None) for pair in pairs]
            rows.append([f"{split} {arrow(split, KNOWLEDGE[0])}", *cells])
    return terminal(Section(title, ["", *headings], rows))


def knowledge_table(
    summary: Summary, people: dict[str, Summary], count: int = 3, numbers: Iterable[Number] = NUMBERS
) -> Table:
    """What a model knows, as shares and probabilities, 0-1: of every split, then of the people known best and least.

    Args:
        summary: numbers by split.
        people: numbers by split and person, ``questions`` and scores.
        count: how many people of either end are shown.
        numbers: what may be shown.
    """
    scores = {one.name: one.title for one in numbers if "people" in one.shown}
    rows: list[list[Cell | str]] = []
    for split, known in people.items():
        asked = int(sum(values["questions"] for values in known.values()))
        together = [split, f"all {len(known)}", str(asked), *_cells(summary.get(split, {}), scores)]
        rows.append([Cell(text, "best") for text in together])
        ranked = sorted(known, key=lambda person: [-known[person].get(name, -1.0) for name in scores])
        shown: list[str | None] = [*ranked] if len(ranked) <= 2 * count else [*ranked[:count], None, *ranked[-count:]]
        for person in shown:
            if person is None:
                rows.append(["", f"... {len(ranked) - 2 * count} more ..."])
            else:
                values = known[person]
                rows.append(["", person, str(int(values["questions"])), *_cells(values, scores)])
    columns = ["split", "person", "questions", *scores.values()]
    return terminal(Section("What the model knows (0-1)", columns, rows, words=["person"]))


def _cells(values: dict[str, float], names: Iterable[str]) -> list[str]:
    return [f"{values[name]:.2f}" if name in values else "" for name in names]


def side_by_side(rows: Sequence[dict[str, Any]], title: str = "answers") -> Table:
    """What was asked, the true answer where it is known, and what the model says, before and after where it is.

    Args:
        rows: with ``question``, ``after`` and perhaps ``image``, ``person``, ``answer`` and ``before``.
        title: of the table.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False)
    names = ("image", "person", "question", "answer", "before", "after")
    used = [name for name in names if any(row.get(name) for row in rows) or name == "after"]
    table.add_column("", justify="right")
    for name in used:
        title = "truth" if name == "answer" else name
        table.add_column(title, overflow="fold", ratio=2 if name in ("question", "before", "after") else 1)
    for number, row in enumerate(rows, start=1):
        table.add_row(str(number), *(Text("" if row.get(name) is None else str(row[name])) for name in used))
    return table
