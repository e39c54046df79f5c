"""Why a score has no value for a model, in a line below the table; nowhere else is that said."""

from collections.abc import Collection, Iterable, Sequence

from viker_lightning.metrics import SECTIONS, Number, Score

from .contenders import Contender
from .run_scores import numbers_of

ASKED = {
    "generation": ("rouge_l", "no open question"),
    "choice": ("accuracy", "no multiple-choice question"),
    "cloze": ("cloze", "no sentence with a blank"),
}
"""By task a score that every answer of it has, and what is missing where nobody has it."""

WITH_GOLD = frozenset(one.name for one in SECTIONS["gold"])
"""Scores that compare with a gold model."""


def why(number: Number | None, measured: Collection[str], kind: str = "method") -> str:
    """The reason why a score of a split has no value."""
    if not measured:
        return "nothing was asked there"
    if isinstance(number, Score):
        every, missing = ASKED[number.task]
        if every not in measured:
            return missing
    if number is not None and number.name in WITH_GOLD:
        return "it is the gold model itself" if kind == "gold" else "no gold model was asked (evaluation.gold)"
    return number.lacks if number else "the run did not measure it"


def unmeasured(
    models: Sequence[Contender], places: Iterable[tuple[str, str, str]], known: Collection[tuple[str, str, str]]
) -> str:
    """What has no value in a table, and why; empty if everything has one.

    Args:
        models: the rows, those of which something was measured.
        places: split, score and what the column is called.
        known: model, split and score of every cell with a value.
    """
    numbers = numbers_of(run for model in models for run in model.runs)
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for split, score, title in places:
        reasons: dict[str, list[str]] = {}
        for model in models:
            if (model.name, split, score) not in known:
                if reason := why(numbers.get(score), model.scores.get(split, {}).keys(), model.kind):
                    reasons.setdefault(reason, []).append(model.name)
        for reason, whose in reasons.items():
            found.setdefault((reason, tuple(whose)), []).append(title)
    lines = [f"{'; '.join(titles)}{_of(whose, models)}: {reason}" for (reason, whose), titles in found.items()]
    return f"Not measured: {'. '.join(lines)}." if lines else ""


def _of(whose: Sequence[str], models: Sequence[Contender]) -> str:
    return "" if len(whose) == len(models) else f" of {', '.join(whose)}"
