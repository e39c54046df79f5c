"""A few fixed questions with their answers before and after, one a row, ready for a table."""

from typing import Any

from viker_lightning.metrics import NUMBERS, Prediction, SplitAnswers, measure
from viker_lightning.storage.runs.read import Run

from .answers import QUESTIONS, moments, open_questions, shown_people, token_views
from .html import token_page

SCORES = [one for one in NUMBERS if "probes" in one.shown]
KEY = ("person", "modality", "number", "answer")


def probe_rows(run: Run) -> list[dict[str, Any]]:
    """The first open questions about a few people of forget, test, retain and real.

    People and questions follow from the data alone, or from ``report.people``, so the rows of different methods meet.

    Args:
        run: a run; before it has ended, what came ``after`` is ``None``.

    Returns:
        Rows with ``id`` (the same in every run on the same data), ``split``, ``person``, ``picture`` (a data URI, or
        ``None`` where the run keeps none), ``question``, ``expected``, ``before``, ``after``, each of :data:`SCORES`
        with ``_before`` and ``_after`` (0-1, or ``None``), and ``key_tokens``: for forget answers a page with every
        token coloured by key-token entropy, where the run asked an ideal distribution.
    """
    pages = {tuple(a[key] for key in KEY): token_page([a]) for a in token_views(run)}
    rows = []
    for split, people in shown_people(run, run.option("report.people")).items():
        questions = open_questions(moments(run), split)
        for person in people:
            rows += [_row(run, answers, pages) for answers in questions[person][:QUESTIONS]]
    return rows


def _row(run: Run, answers: dict[str, Prediction], pages: dict[tuple[Any, ...], str]) -> dict[str, Any]:
    first = next(iter(answers.values()))
    split, person = first.split, first.person
    scores = {when: measure(SplitAnswers([p]), SCORES) for when, p in answers.items()}
    return {
        "id": f"{split}/{person}/{first.modality}/{first.number}",
        "split": split,
        "person": person,
        "picture": run.portraits.get(split, {}).get(person),
        "question": first.question,
        "expected": first.reference,
        "before": answers["before"].answer if "before" in answers else None,
        "after": answers["after"].answer if "after" in answers else None,
        **{f"{s.name}_{w}": scores.get(w, {}).get(s.name) for s in SCORES for w in ("before", "after")},
        "key_tokens": pages.get((person, first.modality, first.number, first.reference)) if split == "forget" else None,
    }
