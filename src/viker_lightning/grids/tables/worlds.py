"""Methods compared over worlds: how far from gold each is in every world, and paired differences from the reference.

A world is a block of the table: people with a vanilla model and two gold models of their own. Its runs share all of
these, so over people of one world nothing can be said about other worlds; here a pair is a world.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, Literal

from viker_lightning.metrics.statistics.paired import ALPHA, fewest, hodges_lehmann, holm, sign_flip
from viker_lightning.reporting import numbers_of
from viker_lightning.reporting.contenders import disagreements
from viker_lightning.reporting.run_scores import better
from viker_lightning.storage.secrets import hide_in

from .measurements import described
from .table import Table

Scores = Mapping[str, float | None]
"""By ``<split>/<score>``; None, or not there, where it was not measured."""

World = Mapping[str, Scores]
"""The scores of a world, by row."""

KL = "kl_gold"

WRONGLY_MARKED = (
    "Where seven methods do not differ, .38 of tables of eight worlds and eleven columns have a ≠ all the same. The "
    "test takes differences to be symmetric about 0: skewed ones with a mean of 0 are marked in .10 to .14 of columns."
)
"""Simulated: normal scores of each column; differences as skewed as exponential ones."""


@dataclass(frozen=True)
class Measure:
    """What is compared of a column.

    Attributes:
        column: ``<split>/<score>``.
        heading: of the column, with its split.
        sign: what is good of the score: ``★``, ``↑`` or ``↓``.
        kind: ``distance``: how far from gold's value, where near gold is good; ``floor``: by how much KL to gold is
            above that of the second gold model; ``kept``: the score less vanilla's, where what is known is to stay;
            ``value``: the score itself.
        good: 1 where a high value of the measure is good, -1 where a low one is.
    """

    column: str
    heading: str
    sign: str
    kind: Literal["distance", "floor", "kept", "value"]
    good: int

    def compare(self, own: Scores, vanilla: Scores, gold: Scores, floor: Scores) -> float | None:
        """The measure of a row in a world; ``None`` if something it needs was not measured."""
        other = {"distance": gold, "floor": floor, "kept": vanilla, "value": own}[self.kind].get(self.column)
        value = own.get(self.column)
        if value is None or other is None:
            return None
        if self.kind == "value":
            return value
        return abs(value - other) if self.kind == "distance" else value - other


def worlds_record(table: Table) -> dict[str, Any]:
    """Everything about a grid of worlds, for JSON; pages and figures are made of it alone.

    Returns:
        ``worlds``, ``methods``, ``measures`` (the attributes of :class:`Measure`), ``values`` and ``measured`` by
        world, row and column (a row some of whose seeds are missing in a world has none there, and a world without
        vanilla or either gold model measures nothing), ``means`` over worlds,
        ``floor`` (the second gold model's measures, and its own KL to gold), ``differences`` (see
        :func:`differences`), ``left_out`` (worlds that a method cannot be compared in), and what it was made with.
    """
    names = {kind: [name for name, its in table.rows.items() if its == kind] for kind in _KINDS}
    vanilla, gold, floor = (next(iter(names[kind]), "") for kind in _KINDS[:3])
    measures = _measures(table)
    values = {world: _values(table, world, measures) for world in table.blocks}
    beside = (vanilla, gold, floor)
    whole = {world: rows for world, rows in values.items() if {*beside} <= rows.keys()}
    measured = {world: _measured(rows, measures, beside) for world, rows in whole.items()}
    run = set().union(*values.values())
    methods = [name for name in names["method"] if name in run]
    return {
        **described(table),
        "worlds": table.blocks,
        "methods": methods,
        "not_run": [name for name in names["method"] if name not in run],
        "reference": table.grid.reference,
        "vanilla": vanilla,
        "gold": gold,
        "second_gold": floor,
        "measures": [asdict(one) for one in measures],
        "values": values,
        "measured": measured,
        "means": {name: _means(name, measures, values, measured) for name in table.rows if name in run},
        "floor": {one.column: _floor(one, floor, values, measured) for one in measures},
        "differences": differences(measured, measures, methods, table.grid.reference),
        "left_out": _left_out(values, methods, [*beside, table.grid.reference]),
        "warnings": _warnings(table),
        "unmeasured": _unmeasured(table),
        "settings": _settings(table),
    }


_KINDS = ("vanilla", "gold", "floor", "method")


def differences(
    measured: Mapping[str, World], measures: Sequence[Measure], methods: Sequence[str], reference: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """How each method differs from the reference, over the worlds in which both were measured.

    Returns:
        By column and method: the ``worlds`` that are pairs, the Hodges-Lehmann ``estimate`` of the difference with its
        exact interval ``low``, ``high`` and what that covers (``coverage``; None and 0 of fewer than 6 worlds), the
        exact sign-flip ``p`` and ``p_holm``, corrected for the methods compared in the column. Signed so that a
        positive difference is good: the method is closer to gold than the reference, keeps more, or scores better.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for one in measures:
        column = found[one.column] = {}
        for name in methods:
            pairs = paired(measured, one, name, reference)
            if name != reference and pairs:
                shift = asdict(hodges_lehmann([*pairs.values()]))
                column[name] = {"worlds": [*pairs], **shift, "p": sign_flip([*pairs.values()])}
        corrected = holm({name: difference["p"] for name, difference in column.items()})
        for name, difference in column.items():
            difference["p_holm"] = corrected[name]
    return found


def paired(measured: Mapping[str, World], one: Measure, name: str, reference: str) -> dict[str, float]:
    """By world, how much better a row is than the reference, where both were measured."""
    return {
        world: one.good * (own - theirs) + 0.0  # no -0
        for world, there in measured.items()
        if (own := there.get(name, {}).get(one.column)) is not None
        and (theirs := there.get(reference, {}).get(one.column)) is not None
    }


def differs(difference: Mapping[str, Any]) -> bool:
    """Whether one of :func:`differences` shows anything."""
    return bool(difference["p_holm"] <= ALPHA)


def statistics_note(methods: int, reference: str) -> str:
    """How methods are compared over worlds, in plain words."""
    rivals = max(1, methods - 1)
    needed = fewest(rivals)
    return (
        f"A pair is a world. Differences from {reference or 'the reference'}, which was named in advance: "
        "Hodges-Lehmann estimate (median of the Walsh averages), exact interval of at least 95 % from the signed-rank "
        "distribution (not corrected for the number of rivals), none of fewer than 6 worlds; p: exact two-sided "
        "sign-flip test of the worlds' differences, with Holm's correction over the rivals of a column, not over "
        f"columns; ≠: p is at most {ALPHA:g}. {WRONGLY_MARKED} With {rivals} "
        f"rival{'s' * (rivals > 1)} no fewer than {needed} worlds can show a difference: the smallest p of {needed} "
        f"is 2/{2**needed}, and {ALPHA / rivals:.4f} is needed. The test is about other worlds of this benchmark: "
        "people, vanilla and gold models drawn anew, from the same faces' traits, names and base model."
    )


def _measures(table: Table) -> list[Measure]:
    runs = table.contender_runs
    numbers, found = numbers_of(runs), []
    for split, score, heading in table.columns:
        good = better(split, score, runs)
        kind: Literal["distance", "floor", "kept", "value"] = "value"
        if score == KL:
            kind = "floor"
        elif good == "gold":
            kind = "distance"
        elif numbers[score].good == "by split":
            kind = "kept"
        if good is not None:
            name, sign = heading[:-2], heading[-1]
            found.append(Measure(f"{split}/{score}", f"{split} {name}", sign, kind, 1 if good == "max" else -1))
    return found


def _value(table: Table, world: str, name: str, column: str) -> float | None:
    """Mean over questions and seeds; the people of one world have no interval here."""
    split, _, score = column.partition("/")
    if sums := table.contenders[world][name].sums(split, score):
        return sums.mean
    estimate = table.estimate(world, name, split, score)  # of a score that is no mean over questions
    return estimate.value if estimate else None


def _values(table: Table, world: str, measures: Sequence[Measure]) -> World:
    """The scores of every row of which no seed is missing."""
    names = [name for name, contender in table.contenders[world].items() if not contender.partial]
    return {name: {m.column: _value(table, world, name, m.column) for m in measures} for name in names}


def _measured(rows: World, measures: Sequence[Measure], beside: Sequence[str]) -> World:
    """The measures of every row of a world, held against vanilla, gold and the second gold model."""
    others = [rows[name] for name in beside]
    return {name: {m.column: m.compare(own, *others) for m in measures} for name, own in rows.items()}


def _means(
    name: str, measures: Sequence[Measure], values: Mapping[str, World], measured: Mapping[str, World]
) -> dict[str, dict[str, Any]]:
    """By column, a row's score and measure on average, and in how many worlds it has the score."""
    means = {}
    for column in (m.column for m in measures):
        scores, distances = (
            [rows.get(name, {}).get(column) for rows in worlds.values()] for worlds in (values, measured)
        )
        known = sum(score is not None for score in scores)
        means[column] = {"value": _mean(scores), "measured": _mean(distances), "worlds": known}
    return means


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _floor(one: Measure, floor: str, values: Mapping[str, World], measured: Mapping[str, World]) -> dict[str, Any]:
    """How far gold is from itself, by world and on average; of KL the value itself, which methods are held against."""
    source = values if one.kind == "floor" else measured
    by_world = {world: there[floor].get(one.column) for world, there in source.items() if floor in there}
    return {"by_world": by_world, "mean": _mean(by_world.values())}


def _left_out(values: Mapping[str, World], methods: Sequence[str], beside: Sequence[str]) -> dict[str, list[str]]:
    """By method, the worlds it is not compared in: not all runs of it, or of what it is held against, are there."""
    left = {name: [world for world, there in values.items() if not {name, *beside} <= there.keys()] for name in methods}
    return {name: worlds for name, worlds in left.items() if worlds}


def _warnings(table: Table) -> list[str]:
    """Why the runs of a world do not compare."""
    found = []
    for world in table.blocks:
        runs = [run for name in table.rows for run in table.read_runs(world, name)[1]]
        found += [f"world {world}: {reason}" for reason in disagreements(runs)]
    return found


def _unmeasured(table: Table) -> list[str]:
    """Why cells are empty, a sentence for all worlds that agree."""
    found: dict[str, list[str]] = {}
    for world in table.blocks:
        if sentence := table.unmeasured(world):
            found.setdefault(sentence, []).append(world)
    several = len(found) > 1
    return [f"Worlds {', '.join(worlds)}. {one}" if several else one for one, worlds in found.items()]


def _settings(table: Table) -> dict[str, dict[str, Any]]:
    """What a row's first finished run was trained with: its model's options, and its steps."""
    found = {}
    for name, row in table.grid.rows.items():
        runs = [run for world in table.blocks for run in table.read_runs(world, name)[1]]
        if runs and not row.before:
            model, steps = runs[0].option("model.init_args", {}), runs[0].option("trainer.max_steps")
            found[name] = hide_in({**model, "max_steps": steps})
    return found
