"""From predictions to numbers: one place, whoever asks."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

import torch
from torchmetrics import Metric
from typing_extensions import override

from viker_lightning import metrics
from viker_lightning.errors import UserError
from viker_lightning.metrics import FORGOTTEN, KEPT, NUMBERS, OVERALL, Number, Prediction, Score, SplitAnswers, by_split
from viker_lightning.metrics.gold import ALL_ATTACKS
from viker_lightning.metrics.prediction import TEXT

from .protocols import CORRECTED, Protocol

Numbers = dict[str, float]

PEOPLE = [one for one in NUMBERS if isinstance(one, Score) and "people" in one.shown]
"""What is known of every person."""


def summarise(
    predictions: Iterable[Prediction],
    gold: Sequence[Prediction] = (),
    gibberish: Callable[[Sequence[str]], list[float]] | None = None,
    protocol: Protocol = CORRECTED,
    paired: bool = False,
    scores: Sequence[Number] = (),
) -> dict[str, Numbers]:
    """Computes every number of the table (:mod:`viker_lightning.metrics.scores`) for every split.

    Args:
        predictions: in any order, each question once.
        gold: what the model retrained without the forget set answered to the same questions.
        gibberish: texts to probabilities of being clean, such as a
            :class:`~viker_lightning.evaluation.gibberish.GibberishClassifier`.
        protocol: the one the predictions were made with.
        paired: whether a person's questions are the same with image and without, number by number, so that both
            answers can be looked at together (UMU-Bench).
        scores: from outside the package, beside those of the table.

    Returns:
        For each split, its numbers; one without data is left out. Where a split is asked with and without images, its
        name stands for the questions with image and ``<split>_text`` for the others. ``overall`` has what is made of
        several splits, if anything.

    Raises:
        UserError: if the gold model answered none of the questions.
    """
    found = list(predictions)
    check_gold(found, gold)
    parts = by_split(found)
    summary = {}
    for split, part in parts.items():
        without_image = parts.get(split + TEXT, ())
        answers = SplitAnswers(part, without_image, gold, protocol, gibberish, paired)
        summary[split] = metrics.measure(answers, [*NUMBERS, *scores])
    overall = protocol.overall(found)
    if overall is None:
        overall = _utility(summary)
    return summary | ({OVERALL: overall} if overall else {})


class SummaryMetric(Metric):
    """The numbers of all splits as a torchmetrics metric, over all processes.

    Processes exchange the answers themselves: a sum added up process by process would round otherwise than one process
    does, and corpus scores and comparisons with the gold model need every answer. ``compute`` returns what
    :func:`summarise` does; :attr:`answers` then has the answers of all processes.

    Args:
        order: sort key of answers, so that numbers are the same whichever process gave an answer.
        options: of :func:`summarise`.
    """

    full_state_update = False
    is_differentiable = False
    predictions: list[Prediction]

    def __init__(self, order: Callable[[Prediction], Any], **options: Any) -> None:
        super().__init__()
        self.order, self.options = order, options
        self.answers: list[Prediction] = []
        self.add_state("predictions", [], dist_reduce_fx=None)

    @override
    def update(self, predictions: Iterable[Prediction]) -> None:
        self.predictions += predictions

    @override
    def compute(self) -> dict[str, Numbers]:
        self.answers = sorted(self.predictions, key=self.order)
        return summarise(self.answers, **self.options)

    @override
    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the answers; torchmetrics gathers tensors only."""
        parts: list[list[Prediction]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, self.predictions)
        self.predictions = list(chain(*parts))

    @override
    def _apply(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Moves nothing: answers are on no device."""
        return self

    __hash__ = torch.nn.Module.__hash__  # torchmetrics hashes the state, and answers have no hash


def check_gold(found: Sequence[Prediction], gold: Sequence[Prediction]) -> None:
    """Refuses a gold model that answered none of the questions about the people to forget."""
    ours = metrics.forgotten_answers(found)
    if gold and ours and not ours.keys() & metrics.forgotten_answers(gold).keys():
        raise UserError(
            f"evaluation.gold_predictions: found none of the {len(ours)} open questions about the forget set; "
            "evaluate the gold model on the same data"
        )


def numbers(
    found: Sequence[Prediction],
    gibberish: Callable[[Sequence[str]], list[float]] | None = None,
    protocol: Protocol = CORRECTED,
) -> Numbers:
    """The numbers of questions of one split by themselves."""
    return metrics.measure(SplitAnswers(found, gibberish=gibberish, protocol=protocol), NUMBERS)


def by_request(
    predictions: Iterable[tuple[str, Prediction]],
    requests: Sequence[Sequence[str]],
    gibberish: Callable[[Sequence[str]], list[float]] | None = None,
    protocol: Protocol = CORRECTED,
) -> list[dict[str, Any]]:
    """Computes what is known of the people of each request by themselves.

    Args:
        predictions: with the moment each was given at, in any order.
        requests: who was to be forgotten, request by request.
        gibberish: as for :func:`summarise`.
        protocol: as for :func:`summarise`.

    Returns:
        For each request its ``people`` and, by moment, the numbers of the splits of people to forget.
    """
    found: list[dict[str, Any]] = []
    moments: dict[str, list[Prediction]] = {}
    for when, p in predictions:
        if p.split in FORGOTTEN:
            moments.setdefault(when, []).append(p)
    for people in requests:
        mine = {when: [p for p in answers if p.person in people] for when, answers in moments.items()}
        summaries = {
            when: {split: numbers(part, gibberish, protocol) for split, part in by_split(answers).items()}
            for when, answers in mine.items()
        }
        found.append({"people": [*people], **summaries})
    return found


def by_person(predictions: Sequence[Prediction], scores: Sequence[Number] = ()) -> dict[str, dict[str, Numbers]]:
    """Computes what is known of every person.

    Args:
        predictions: in any order, each question once.
        scores: from outside the package; those that are to be shown for people are.

    Returns:
        By split, as in :func:`summarise`, and by person: ``questions``, how many were asked, and each of
        :data:`PEOPLE` of which there are any, 0-1.
    """
    found: dict[str, dict[str, Numbers]] = {}
    shown = [*PEOPLE, *(one for one in scores if "people" in one.shown)]
    for split, part in by_split(predictions).items():
        found[split] = {}
        for person, answers in groupby(sorted(part, key=attrgetter("person")), key=attrgetter("person")):
            mine = list(answers)
            found[split][person] = {"questions": len(mine)} | metrics.measure(SplitAnswers(mine), shown)
    return found


def person_sums(predictions: Iterable[tuple[str, Prediction]], scores: Sequence[Number]) -> dict[str, Any]:
    """What each person adds to scores from outside the package, for readers that cannot import them.

    By score, moment (of which each prediction has one), split and person: sum and number of values.
    """
    moments: dict[str, list[Prediction]] = {}
    for when, p in predictions:
        moments.setdefault(when, []).append(p)
    sums: dict[str, Any] = {}
    for when, found in moments.items():
        for split, part in by_split(found).items():
            for name, values in metrics.collect(SplitAnswers(part), scores).items():
                people = sums.setdefault(name, {}).setdefault(when, {}).setdefault(split, {})
                for person, total, count in zip(values.people, values.totals, values.counts, strict=True):
                    added = people.setdefault(person, [0.0, 0])
                    added[0], added[1] = added[0] + total, added[1] + count
    return sums


def distances(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Numbers]:
    """How far unlearning has come to the gold model, by each membership attack.

    Args:
        before: summary of the model before unlearning, compared with the gold model.
        after: the same after unlearning.

    Returns:
        By split and attack, see :func:`~viker_lightning.metrics.distance_to_gold`; left out where the attack did not
        separate the models even before.
    """
    found = {
        split: {
            name: metrics.distance_to_gold(after[split][name], 0.5, values[name])
            for name in ALL_ATTACKS
            if values.get(name, 0.5) != 0.5 and name in after.get(split, {})
        }
        for split, values in before.items()
    }
    return {split: values for split, values in found.items() if values}


def _utility(summary: dict[str, Numbers]) -> Numbers:
    """TOFU's model utility, of the numbers there are."""
    values = {}
    for split in KEPT:
        there = summary.get(split, {})
        # TOFU and CLEAR weigh the answer against wrong ones only where these are options: real faces, world facts.
        relative = split != "retain" and "relative_probability" in there
        for name in ("relative_probability" if relative else "answer_probability", "rouge_l_recall", "truth_ratio"):
            if name in there:
                values[f"{split}/{name}"] = there[name]
    return {"model_utility": metrics.model_utility(values)} if values else {}
