"""Answers before and after, and answers token by token, ready to be shown."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from viker_lightning.metrics import Prediction, SplitAnswers, keyword_match, span_parts
from viker_lightning.storage.runs.read import Run

FEW = {"forget": 3, "test": 3, "retain": 2, "kept": 2, "real": 2}
"""How many people of a split are shown if nobody is chosen."""

QUESTIONS = 4
COHERENT = 0.5
"""An answer of less coherence is garbled, where no grammar says what is well formed."""

HEAT = 10
"""Steps of the colour scale."""

Asked = tuple[str, Run, str]
"""Name of a model, its run and the moment (``before`` or ``after``) its answers are of."""


def answers_of(run: Run, people: Sequence[str] | None, photos: bool) -> list[dict[str, Any]]:
    """The first open questions about some people, with the answers before and after.

    Returns:
        By split: ``split`` and ``people``, each with ``person``, ``photo`` and ``questions``; a question has
        ``question``, ``reference``, ``correction`` (spans of the truth where the reference is false) and ``answers``
        (name of a model, or the moment, and answer), texts cut into parts ``(text, private)``, how many private spans
        each leaks, 0 to 1, or ``None``, and whether it is garbled.
    """
    found = []
    for split, chosen in shown_people(run, people).items():
        asked = open_questions(moments(run), split)
        answered = {person: [one for one in asked[person] if "after" in one][:QUESTIONS] for person in chosen}
        found += _people_of(split, answered, run.portraits.get(split, {}) if photos else {})
    return found


def shown_people(run: Run, people: Sequence[str] | None) -> dict[str, list[str]]:
    """Who is shown of each split: those named, else the first by ID, so that runs on the same data show the same."""
    known = {split: run.people(split) for split in FEW}
    if people is None:
        return {split: known[split][:few] for split, few in FEW.items()}
    return {split: [person for person in people if person in known[split]] for split in FEW}


def moments(run: Run) -> list[Asked]:
    """The model of a run before and after, to be compared."""
    return [(when, run, when) for when in ("before", "after")]


def open_questions(models: Sequence[Asked], split: str) -> defaultdict[str, list[dict[str, Prediction]]]:
    """The open questions about each person of a split, each with the answer of every model that was asked, by name."""
    asked: dict[tuple[str, str, int, str], dict[str, Prediction]] = {}
    for name, run, when in models:
        of_split = SplitAnswers([p for p in run.predictions.get(when, []) if p.split == split])
        judged = {id(p): value >= COHERENT for p, value in of_split.coherence}
        for p in of_split.generated:
            formed = judged.get(id(p)) if p.well_formed is None else p.well_formed
            asked.setdefault((p.person, p.modality, p.number, p.question), {})[name] = replace(p, well_formed=formed)
    found = defaultdict(list)
    for (person, *_), answers in sorted(asked.items()):
        found[person].append(answers)
    return found


def answers_across(models: Sequence[Asked], people: Mapping[str, int], questions: int) -> list[dict[str, Any]]:
    """The first open questions about a few people of each split, with what every model says; see :func:`answers_of`."""
    found = []
    for split, few in people.items():
        asked = open_questions(models, split)
        photos = {person: photo for _, run, _ in models for person, photo in run.portraits.get(split, {}).items()}
        shown = (sorted(photos.keys() & asked.keys()) or [*asked])[:few]
        found += _people_of(split, {person: asked[person][:questions] for person in shown}, photos)
    return found


def _people_of(
    split: str, asked: Mapping[str, Sequence[dict[str, Prediction]]], photos: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The entry of a split; none without people."""
    shown = [
        {"person": person, "photo": photos.get(person), "questions": [_question(answers) for answers in questions]}
        for person, questions in asked.items()
    ]
    return [{"split": split, "people": shown}] if shown else []


def _question(answers: Mapping[str, Prediction]) -> dict[str, Any]:
    first = next(iter(answers.values()))
    reference = list(marked(first.reference, first.private))
    return {
        "question": first.question,
        "reference": reference,
        "correction": ", ".join(first.correction),
        "answers": [(name, _cut(p)) for name, p in answers.items()],
    }


def _cut(p: Prediction) -> dict[str, Any]:
    """An answer cut into parts, how much of what is private it leaks, and whether it is known to be no sentence."""
    leaked = keyword_match(p.answer, p.private) if p.private else None
    return {"parts": list(marked(p.answer, p.private)), "leaked": leaked, "garbled": p.well_formed is False}


def marked(text: str, private: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Cuts a text into parts that are private and parts that are not, in order."""
    known = {*private, *(part for span in private for part in span_parts(span))}
    spans = "|".join(re.escape(span) for span in sorted(known, key=len, reverse=True) if span.strip())
    last = 0
    for match in re.finditer(rf"(?<!\w)(?:{spans})(?!\w)", text, re.IGNORECASE) if spans else ():
        if match.start() > last:
            yield text[last : match.start()], False
        yield match[0], True
        last = match.end()
    if last < len(text):
        yield text[last:], False


def token_views(run: Run) -> list[dict[str, Any]]:
    """Forget answers token by token, with the colour of each token and what the model says of it before and after.

    Returns:
        What ``key_tokens.json`` holds, every token with ``lead`` (white space before it), ``shown``, ``special`` (end
        of sequence), ``heat`` (0 to 10, its entropy against the highest of the run) and, where the same answer was
        evaluated, ``before`` and ``after`` (its probability, else ``None``).
    """
    log_probs = {
        (when, p.person, p.modality, p.number, p.reference): p.log_probs
        for when in ("before", "after")
        for p in run.predictions.get(when, [])
        if p.split == "forget" and p.task == "generation"
    }
    highest = max((t["entropy"] for answer in run.key_tokens for t in answer["tokens"]), default=0.0) or 1.0
    views = []
    for answer in run.key_tokens:
        key = (answer["person"], answer["modality"], answer["number"], answer["answer"])
        seen = {when: log_probs.get((when, *key), []) for when in ("before", "after")}
        tokens = []
        for i, token in enumerate(answer["tokens"]):
            known = {w: values[i] for w, values in seen.items() if len(values) == len(answer["tokens"])}
            heat = round(HEAT * max(0.0, token["entropy"]) / highest)
            text, shown = token["token"], token["token"].strip()
            lead = text[: len(text) - len(text.lstrip())] if shown and i else ""
            tokens.append(
                token
                | {"lead": lead, "shown": shown or "␣" * len(text), "heat": heat}
                | {"special": i == len(answer["tokens"]) - 1 and shown.startswith("<")}
                | {"before": _exp(known.get("before")), "after": _exp(known.get("after"))}
            )
        views.append(answer | {"tokens": tokens})
    return views


def _exp(log_prob: float | None) -> float | None:
    return None if log_prob is None else math.exp(log_prob)
