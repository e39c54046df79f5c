"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from viker_lightning.runs.read import Summary

from .scores import arrow

TOLD = {"keyword_match": "told", "rouge_l": "ROUGE-L", "accuracy": "choices"}
COMPARED = TOLD | {"coherence": "coherence", "kl_gold": "KL to gold"}


def headline(summary: Summary) -> dict[str, str]:
    """The three numbers of a model in a few words: what is told of the people to forget and to keep, and how fluently.

    Args:
        summary: numbers by split.

    Returns:
        By ``forget``, ``retain`` and ``coherence``, as far as they were measured; the score is the share of private
        parts told where there are any, else ROUGE-L or multiple-choice accuracy.
    """
    found = {}
    for split in ("forget", "retain"):
        score = next((score for score in TOLD if score in summary.get(split, {})), None)
        if score:
            found[split] = f"{split} {TOLD[score]} {arrow(split, score)} {summary[split][score]:.2f}"
    spoken = next((summary[s] for s in ("test", "forget") if "coherence" in summary.get(s, {})), None)
    return found | ({"coherence": f"coherence ↑ {spoken['coherence']:.2f}"} if spoken else {})


def before_after_table(before: Summary, after: Summary) -> Table:
    """What a run changed: every split before and after.

    Args:
        before: numbers by split; empty if nothing was measured then.
        after: the same after it.

    Returns:
        A row a split, a column for each score that was measured; cells are ``before → after``, or what there is.
    """
    title = f"{'before → after; ' if before else ''}told: share of private parts told; ★ near gold is good"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    wanted = ("forget", "test", "retain", "real", "general")
    used = [name for name in COMPARED if any(name in after.get(split, {}) for split in wanted)]
    signs = {"coherence": " ↑", "kl_gold": " ↓"}
    table.add_column("", no_wrap=True)
    for name in used:
        table.add_column(COMPARED[name] + signs.get(name, ""), justify="right", no_wrap=True)
    for split in wanted:
        if split in after:
            pairs = [(before.get(split, {}).get(name), after[split].get(name)) for name in used]
            table.add_row(f"{split} {arrow(split, 'keyword_match')}", *(_change(old, new) for old, new in pairs))
    return table


def _change(old: float | None, new: float | None) -> str:
    return " → ".join(f"{value:.2f}" for value in (old, new) if value is not None) or "-"


KNOWN = {"keyword_match": "private parts told", "accuracy": "choices right", "answer_probability": "answer probability"}


def knowledge_table(summary: Summary, people: dict[str, Summary], count: int = 3) -> Table:
    """What a model knows: every split as a whole, then the people it knows best and least.

    Args:
        summary: numbers by split.
        people: numbers by split and person, ``questions`` and whatever of :data:`KNOWN` there is.
        count: how many people of either end are shown.

    Returns:
        A table with shares and probabilities, 0-1.
    """
    table = Table(title="What the model knows (0-1)", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("split", no_wrap=True)
    table.add_column("person", overflow="fold")
    for name in ("questions", *KNOWN.values()):
        table.add_column(name, justify="right")
    for split, known in people.items():
        asked = int(sum(values["questions"] for values in known.values()))
        table.add_row(split, f"all {len(known)}", str(asked), *_known(summary.get(split, {})), style="bold")
        ranked = sorted(known, key=lambda person: [-known[person].get(name, -1.0) for name in KNOWN])
        shown: list[str | None] = [*ranked] if len(ranked) <= 2 * count else [*ranked[:count], None, *ranked[-count:]]
        for person in shown:
            if person is None:
                table.add_row("", f"... {len(ranked) - 2 * count} more ...")
            else:
                values = known[person]
                table.add_row("", Text(person), str(int(values["questions"])), *_known(values))
    return table


def _known(values: dict[str, float]) -> list[str]:
    return [_cell(values, name) for name in KNOWN]


def side_by_side(rows: Sequence[dict[str, Any]], title: str = "answers") -> Table:
    """What was asked, the true answer where it is known, and what the model says, before and after where it is.

    Args:
        rows: with ``question``, ``after`` and perhaps ``image``, ``person``, ``answer`` and ``before``.
        title: of the table.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, show_lines=True, pad_edge=False)
    titles = {"image": "image", "person": "person", "question": "question", "answer": "truth"}
    titles |= {"before": "before", "after": "after"}
    used = [name for name in titles if any(row.get(name) for row in rows) or name == "after"]
    table.add_column("", justify="right")
    for name in used:
        table.add_column(titles[name], overflow="fold", ratio=2 if name in ("question", "before", "after") else 1)
    for number, row in enumerate(rows, start=1):
        table.add_row(str(number), *(Text("" if row.get(name) is None else str(row[name])) for name in used))
    return table


def _cell(values: dict[str, float], *names: str) -> str:
    return "/".join(f"{values[name]:.2f}" if name in values else "-" for name in names)
