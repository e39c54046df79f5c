"""The models a report speaks of: vanilla, gold, and each method with all its seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from viker_lightning.errors import UserError
from viker_lightning.metrics.statistics.intervals import Estimate, Sums, interval
from viker_lightning.metrics.statistics.paired import ALPHA, EXACT, FLIPS, fewest, holm, swap_test
from viker_lightning.storage.runs.read import Run, read_run

from .run_scores import Scored, better, scores_of

Kind = Literal["vanilla", "gold", "floor", "method"]
"""What a model is in a comparison; see :class:`Contender`."""

DECIMALS = 3
"""Values that agree to so many places are equally good."""

OWN = "ViKeR"
"""The method others are compared with where no other is named."""


@dataclass
class Contender:
    """A model, or runs that differ in their seed alone.

    Attributes:
        name: what it is called.
        kind: ``vanilla``, ``gold`` and ``floor`` (gold of another seed: how far gold is from itself) are there to be
            compared with, and win nothing.
        runs: its runs; empty for the model another run began with.
        scores: what each person adds to each score, all seeds together.
        partial: says which seeds were run where some are missing; such a method takes no place either.
    """

    name: str
    kind: Kind
    scores: Scored
    runs: list[Run] = field(default_factory=list)
    partial: str = ""

    def sums(self, split: str, score: str) -> Sums | None:
        """What each person adds to a score, if it was measured."""
        return self.scores.get(split, {}).get(score)

    def estimate(self, split: str, score: str) -> Estimate | None:
        """Mean and interval of a score, if it was measured."""
        sums = self.sums(split, score)
        return interval(sums) if sums else None


@dataclass(frozen=True)
class Place:
    """How a method does at a score.

    Attributes:
        rank: ``best``, ``second`` or nothing.
        p: p-value of its difference from the reference, corrected for the number of rivals; ``None`` of the reference
            itself and of what cannot be compared with it.
    """

    rank: str = ""
    p: float | None = None

    @property
    def apart(self) -> bool:
        """Whether it differs from the reference."""
        return self.p is not None and self.p <= ALPHA


def contenders(runs: Sequence[Run]) -> list[Contender]:
    """Vanilla first, then gold and gold of another seed, then the methods in the order they are given in.

    Vanilla is what the first run that measured it began with; gold is a run of stage gold among them, or the run folder
    that a run names as its gold model. A run of stage gold that names a gold model itself, or follows another, is gold
    of another seed. Runs whose configs differ in nothing but seed, folder and what is evaluated
    are seeds of one contender: their answers are pooled, so that its value is the mean over seeds, and a person is
    drawn with the answers of all seeds.
    """
    methods: dict[str, list[Run]] = {}
    given: dict[str, list[Run]] = {"vanilla": [], "gold": []}
    for run in runs:
        stage = run.option("data.init_args.stage")
        if stage in given and run.method == stage:
            given[stage].append(run)
        else:
            methods.setdefault(_settings(run), []).append(run)
    found = [*_vanilla(runs, given["vanilla"]), *_golds(runs, given["gold"])]
    names = [group[0].method for group in methods.values()]
    for group in methods.values():
        name = group[0].method if names.count(group[0].method) == 1 else f"{group[0].method} ({group[0].folder.name})"
        found.append(Contender(name, "method", pooled([scores_of(run) for run in group]), group))
    return found


def _vanilla(runs: Sequence[Run], vanilla: Sequence[Run]) -> list[Contender]:
    """The model that methods begin with, if a run of it is there or a run has measured it."""
    began = next((run for run in runs if run.method != "gold" and scores_of(run, "before")), None)
    if vanilla:
        return [Contender("vanilla", "vanilla", scores_of(vanilla[0]), [vanilla[0]])]
    return [Contender("vanilla", "vanilla", scores_of(began, "before"))] if began is not None else []


def _golds(runs: Sequence[Run], golds: Sequence[Run]) -> list[Contender]:
    """The gold model, and gold of another seed, as far as they are there."""
    folder = next((run.gold_folder for run in runs if run.gold_folder), None)
    first = next((run for run in golds if not run.gold_folder), None)
    gold = first or (read_run(folder) if folder else None)
    found = [Contender("gold", "gold", scores_of(gold), [gold])] if gold is not None else []
    if again := [run for run in golds if run is not first]:
        found.append(Contender("gold, other seed", "floor", pooled([scores_of(run) for run in again]), again))
    return found


def pooled(parts: Sequence[Scored]) -> Scored:
    """Adds up what each person adds, over seeds."""
    seeds: dict[tuple[str, str], list[Sums]] = {}
    for part in parts:
        for split, scores in part.items():
            for score, sums in scores.items():
                seeds.setdefault((split, score), []).append(sums)
    found: Scored = {}
    for (split, score), each in seeds.items():
        people = [person for sums in each for person in sums.people]
        totals = [value for sums in each for value in sums.totals.tolist()]
        counts = [value for sums in each for value in sums.counts.tolist()]
        found.setdefault(split, {})[score] = Sums.by_person(people, totals, counts)
    return found


def reference_of(found: Sequence[Contender], wanted: str = "") -> str:
    """The method that the others are compared with: the one named, else :data:`OWN`, else the first; empty for none.

    It is named before any number is looked at.

    Raises:
        UserError: if there is no method of that name.
    """
    names = [c.name for c in found if c.kind == "method"]
    if wanted and wanted not in names:
        raise UserError(f"--reference: no method {wanted!r}; there are {', '.join(names)}")
    own = [name for name in names if name == OWN or name.startswith(f"{OWN} (")]
    return wanted or next(iter([*own, *names]), "")


def ranks(found: Sequence[Contender], split: str, score: str, reference: str) -> dict[str, Place]:
    """Who is best at a score, and who differs from the reference.

    Where near gold is good (forget and test), the best is the method whose value is nearest to gold's, and what is
    compared is that distance; without gold nothing is said there. Elsewhere low or high is good.

    Args:
        found: models; those that are no methods, or lack seeds, take no place.
        split: e.g. ``test``.
        score: e.g. ``keyword_match``.
        reference: what the others are compared with, see :func:`~viker_lightning.metrics.statistics.paired.swap_test`;
            Holm's correction is over them, in this column.

    Returns:
        By name of a method; empty where fewer than two methods were measured.
    """
    good = better(split, score, [run for c in found for run in c.runs])
    sums = {c.name: one for c in found if c.kind == "method" and not c.partial and (one := c.sums(split, score))}
    gold = next((one for c in found if c.kind == "gold" and (one := c.sums(split, score))), None)
    if len(sums) < 2 or good is None or (good == "gold" and gold is None):
        return {}
    target = gold if good == "gold" else None
    sign = -1 if good == "max" else 1
    lost = {name: round(abs(s.mean - target.mean) if target else sign * s.mean, DECIMALS) for name, s in sums.items()}
    places = dict(zip(sorted(set(lost.values())), ("best", "second"), strict=False))
    corrected = _rivals(sums, reference, target)
    return {name: Place(places.get(value, ""), corrected.get(name)) for name, value in lost.items()}


def _rivals(sums: Mapping[str, Sums], reference: str, target: Sums | None) -> dict[str, float]:
    """Corrected p-values of the differences from the reference, by method; none without the reference."""
    tested: dict[str, float] = {}
    for name in sums.keys() - {reference} if reference in sums else ():
        if (p := swap_test(sums[name], sums[reference], target)) is not None:
            tested[name] = p
    return holm(tested)


def marks_note(found: Sequence[Contender], reference: str) -> str:
    """What bold, underlined and ≠ mean, in plain words, for whoever shows :func:`ranks`."""
    rivals = max(1, sum(c.kind == "method" and not c.partial for c in found) - 1)
    gold = any(c.kind == "gold" for c in found)
    near = "the method nearest to gold's value" if gold else "nothing, for there is no gold model to be near to"
    return (
        f"Best and second of the methods are marked by column; where near gold is good (★, as on forget and "
        f"test), {near}. "
        f"≠: differs from {reference or 'the reference'}, which was named in advance, at {100 * ALPHA:g} %: exact "
        "sign-flip test on the people both were asked about, one pair a person (the mean of that person's own answers, "
        "all seeds together, so people count alike), in a ★ column on the distances of both means from gold's; Holm's "
        f"correction over the rivals of a column, not over columns. With {rivals} rival{'s' * (rivals > 1)} in it no "
        f"fewer than {fewest(rivals)} people can show a difference. Where over {EXACT} people differ, signs are drawn "
        f"at random, {FLIPS} times. The test is about people, not about other seeds, vanilla or gold models. A method "
        "some of whose seeds are missing takes no place and is not compared."
    )


def disagreements(runs: Sequence[Run]) -> list[str]:
    """Reasons why the numbers of runs do not compare: other data, another protocol, another vanilla model."""
    facts: dict[str, set[str]] = {"data": set(), "evaluation protocol": set(), "vanilla model": set()}
    for run in runs:
        data = run.provenance.get("data", {})
        facts["data"].add(json.dumps([data.get("fingerprint"), data.get("forget")]))
        facts["evaluation protocol"].add(str(run.results.get("protocol")))
        if run.provenance.get("method") and len(data.get("requests", [])) < 2:  # else each goes on from its own
            facts["vanilla model"].add(str(run.provenance.get("base_weights")))
    return [f"the runs differ in their {name}" for name, values in facts.items() if len(values) > 1]


def _settings(run: Run) -> str:
    """What makes a run what it is, seeds and folders aside."""
    config: dict[str, Any] = json.loads(json.dumps(run.config, default=str))
    if not config:
        return str(run.folder)
    parts: dict[str, Any] = {key: config.get(key) or {} for key in ("model", "data", "trainer")}
    for section in ("model", "data"):
        parts[section].get("init_args", {}).pop("seed", None)
    for key in ("default_root_dir", "logger", "callbacks", "enable_progress_bar"):
        parts["trainer"].pop(key, None)
    return json.dumps(parts, sort_keys=True)
