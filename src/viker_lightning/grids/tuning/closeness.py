"""How far an unlearned model is from what is wanted: gold on whom it forgets, vanilla on whom it keeps. Tuning's score.

Every part is from 0 (good) to 1, and all parts of a sub-score weigh the same:

- ``forgetting``, on forget and test, four parts each: distance of keyword match from gold's, distance of choices from
  gold's, what is lost of gold's share of well-formed answers, and ``1 - exp(-excess)``. The excess is the KL divergence
  of gold from the model above that of a second gold model, nats an answer token, so that this part is the share of an
  answer token's probability, in the geometric mean, that is lost beyond what another seed of gold loses.
- ``retention``, on retain and real, two parts each: what is lost of vanilla's keyword match and of its choices.
- ``inside``, of methods that are to be told from gold by nobody, two parts: how far the area under the ROC curve of
  membership inference is from gold's, and how far the share of choices where the true span is likeliest.

Nothing is paid for going below gold, for distances to it are absolute, nor for knowing more than vanilla.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

from viker_lightning.errors import UserError
from viker_lightning.metrics import FORGOTTEN

Numbers = Mapping[str, Mapping[str, float]]
"""Scores by split, as under ``before`` and ``after`` in ``results.json``."""

ABOUT = str(__doc__).partition("\n\n")[2].strip()
"""What the score is made of, in Markdown."""

KEPT = ("retain", "real")
KEYWORDS, CHOICES, FLUENT, KL = "keyword_match", "accuracy", "well_formed", "kl_gold"
NEEDED = {**dict.fromkeys(FORGOTTEN, (KEYWORDS, CHOICES, FLUENT, KL)), **dict.fromkeys(KEPT, (KEYWORDS, CHOICES))}
"""Which scores of which splits are read."""
INSIDE = ("membership", "choose")
"""The attacks that the third part is made of."""


@dataclass(frozen=True)
class Models:
    """What a world's runs are compared with.

    Attributes:
        vanilla: scores of the model that knows everybody.
        gold: those of the model that never saw the people to forget; it has no KL to itself.
        floor: those of a second gold model, compared with the first.
    """

    vanilla: Numbers
    gold: Numbers
    floor: Numbers


@dataclass(frozen=True)
class Closeness:
    """Distances; see the module.

    Attributes:
        forgetting: from gold, 0 to 1, low is good.
        retention: what is lost of vanilla, 0 to 1, low is good.
        inside: from gold, 0 to 1, low is good; ``None`` if it was not attacked.
    """

    forgetting: float
    retention: float
    inside: float | None = None

    @property
    def score(self) -> float:
        """Their sum, 0 to 3, low is good."""
        return self.forgetting + self.retention + (self.inside or 0.0)


def closeness(model: Numbers, world: Models, more_than_gold: Mapping[str, float] | None = None) -> Closeness:
    """The distances of a model; the module says what they are made of.

    Args:
        model: its scores.
        world: what it is compared with.
        more_than_gold: of each attack of :data:`INSIDE` how much more it finds than in gold, if it was attacked.
    """
    from_gold = []
    for split in FORGOTTEN:
        ours, gold = model[split], world.gold[split]
        from_gold += [abs(ours[KEYWORDS] - gold[KEYWORDS]), abs(ours[CHOICES] - gold[CHOICES])]
        from_gold += [_lost(ours[FLUENT], gold[FLUENT]), 1 - math.exp(-_lost(world.floor[split][KL], ours[KL]))]
    lost = [_lost(model[split][one], world.vanilla[split][one]) for split in KEPT for one in (KEYWORDS, CHOICES)]
    inside = None if more_than_gold is None else mean(abs(more_than_gold[attack]) for attack in INSIDE)
    return Closeness(mean(from_gold), mean(lost), inside)


def needed(numbers: Numbers, where: str, leave_out: str = "") -> dict[str, dict[str, float]]:
    """The scores that :func:`closeness` reads, out of all of a run's; gold has no KL to itself, so it is left out.

    Raises:
        UserError: naming one that is missing.
    """
    found: dict[str, dict[str, float]] = {}
    for split, scores in NEEDED.items():
        for one in scores:
            if one == leave_out:
                continue
            value = numbers.get(split, {}).get(one)
            if value is None:
                raise UserError(
                    f"{where}: no {split}/{one}; tune on an embedded benchmark, with data.splits of all four"
                )
            found.setdefault(split, {})[one] = float(value)
    return found


def _lost(ours: float, theirs: float) -> float:
    return max(0.0, theirs - ours)
