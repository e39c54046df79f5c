"""What each person adds to each score of a run, so that people can be drawn; and how its numbers are to be read."""

from collections.abc import Iterable, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

from viker_lightning.metrics import NUMBERS, SIGNS, Number, Prediction, SplitAnswers, by_split, collect, read_numbers
from viker_lightning.metrics.statistics.intervals import Sums
from viker_lightning.storage.runs.read import Run

Scored = dict[str, dict[str, Sums]]
"""Split, then score, then what each person adds."""

_SCORED: WeakKeyDictionary[Run, dict[str, Scored]] = WeakKeyDictionary()


def numbers_of(runs: Iterable[Run] = ()) -> dict[str, Number]:
    """The numbers of the project by name, and those that runs describe in their results beside them."""
    found = read_numbers(None)
    for run in runs:
        found |= read_numbers(run.results.get("metrics"))
    return found


def better(split: str, score: str, runs: Iterable[Run] = ()) -> Literal["min", "max", "gold"] | None:
    """Which end of a score is good, see :meth:`~viker_lightning.metrics.Number.better`; ``None`` of an unknown one."""
    number = numbers_of(runs).get(score)
    return number.better(split) if number else None


def arrow(split: str, score: str, runs: Iterable[Run] = ()) -> str:
    """What is good of a score, as a sign: low ↓, high ↑ or near gold ★."""
    return SIGNS[better(split, score, runs)]


def scores_of(run: Run, when: str = "after") -> Scored:
    """What each person adds to each score at a moment of a run; empty if nothing was measured then."""
    found = _SCORED.setdefault(run, {})
    if when not in found:
        found[when] = scored(run.predictions.get(when, []))
        for score, moments in run.results.get("sums", {}).items():  # scores that only the run could compute
            for split, people in moments.get(when, {}).items():
                totals, counts = zip(*people.values(), strict=True)
                found[when].setdefault(split, {})[score] = Sums.by_person([*people], totals, counts)
    return found[when]


def scored(predictions: Sequence[Prediction]) -> Scored:
    """Every score that is a mean over answers or tokens, as the mean over a split is defined in ``results.json``.

    Returns:
        By split (``<split>_text`` for questions without image where a split has both) and score; scores without data
        are left out, and so are those that are no means: corpus BLEU, forget quality, membership.
    """
    return {
        split: {
            name: Sums.by_person(values.people, values.totals, values.counts)
            for name, values in collect(SplitAnswers(part), NUMBERS).items()
        }
        for split, part in by_split(predictions).items()
    }
