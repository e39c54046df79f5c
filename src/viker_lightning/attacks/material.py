"""Whom an attack is about and what is asked: read from the data of the gold run, the same for everybody attacked."""

from __future__ import annotations

import hashlib
import importlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.records import ImageGroup, Person, Split, person_name
from viker_lightning.errors import UserError
from viker_lightning.storage.runs import Run, names

log = logging.getLogger(__name__)

PUNCTUATION = ".,;:!?\"'()"


@dataclass(frozen=True)
class Material:
    """The people of an attack.

    Attributes:
        data: the benchmark, set up for unlearning.
        people: training records of the people to be forgotten; somebody with several photos may have several.
        kept: training records of as many people who are to be kept, drawn.
        others: training records of everybody else who is to be kept: examples, and what probes are trained on.
        forget: open questions with private spans about photos of the people to be forgotten, as trained.
        test: the same people on other photos, in other words; empty where the data have none.
        retain: open questions with private spans about the people of ``kept``.
        seed: of whatever an attack draws.
    """

    data: Benchmark
    people: Sequence[Person]
    kept: Sequence[Person]
    others: Sequence[Person]
    forget: Sequence[ImageGroup]
    test: Sequence[ImageGroup]
    retain: Sequence[ImageGroup]
    seed: int

    @property
    def asked(self) -> list[ImageGroup]:
        """What every attack asks: about the people to be forgotten, as trained, and about those who are kept."""
        return [*self.forget, *self.retain]

    def fingerprint(self) -> str:
        """Changes with the data, with who is asked about, and with the seed."""
        asked = repr([(g.person, g.image and g.image.key, g.vqa) for g in (*self.asked, *self.test)])
        asked += repr([(q.paraphrase, q.perturbed) for g in (*self.asked, *self.test) for q in g.vqa])
        return hashlib.sha256(f"{self.data.fingerprint()}/{asked}/{self.seed}".encode()).hexdigest()[:16]


def read_data(run: Run) -> Benchmark:
    """The data of a finished run, set up for unlearning.

    Their class is imported from what is installed, or from beside the command, as ``fit`` does. Code that lies in a run
    folder is not run: somebody may have been handed the folder, and has not asked for more than its numbers.

    Raises:
        UserError: if its config names none that can be made, or a class whose code lies in a run folder.
    """
    path, options = run.option("data.class_path", ""), run.option("data.init_args", {})
    module, _, name = path.rpartition(".")
    _refuse_code_of_a_run(run, module)
    try:
        kind = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, Benchmark)):  # before anything is called
            raise TypeError("is no subclass of viker_lightning.data.datasets.Benchmark")
        made = kind(**options | {"stage": "unlearn"})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{run.folder}: its config.yaml names data that cannot be read ({path}: {error}); install what has the "
            "class or put it beside the command, or let an attack take the data of another run with --data_of"
        ) from error
    made.prepare_data()
    made.setup()
    return made


def _refuse_code_of_a_run(run: Run, module: str) -> None:
    """Finds a module, without importing it or a package it is in, and makes sure that it lies in no run folder.

    Raises:
        UserError: if it or one of its packages does.
    """
    places: Sequence[str] | None = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, places)  # by its last name, in the places of its package
        if spec is None:
            return
        places = [*(spec.submodule_search_locations or [])]
        files = [Path(one).resolve() for one in ([spec.origin] if spec.has_location and spec.origin else places)]
        for folder in {parent for file in files for parent in (file, *file.parents)}:
            if folder == run.folder.resolve() or (folder / names.PROVENANCE).is_file():
                raise UserError(
                    f"{run.folder}: its config.yaml names data whose code lies in a run folder ({files[0]}), which is "
                    "not run; read it, and if you trust it, copy it beside the command and change data.class_path"
                )


def check_protocol(
    run: Run, asks: str = "attacks ask and score the corrected way alone", make: str = "run, gold and vanilla"
) -> None:
    """Makes sure that a run was asked and scored as it is asked and scored here.

    Args:
        run: a run.
        asks: what is done here, for the message.
        make: what must have been made under that protocol, for the message.

    Raises:
        UserError: if it was made under another protocol: its template, its blind questions and its letters are not
            those of here, so that what comes out would say nothing of its own scores.
    """
    protocol = run.option("data.init_args.protocol", "corrected")
    if protocol != "corrected":
        raise UserError(
            f"{run.folder}: was made under the {protocol} protocol, and {asks}; make {make} with "
            "--data.protocol corrected"
        )


def gather(data: Benchmark, people: int | None = None, seed: int = 0) -> Material:
    """Draws whom to attack and what to ask.

    Args:
        data: set up for unlearning.
        people: attack at most so many of the people to be forgotten; ``None`` is all.
        seed: of the draw.

    Raises:
        UserError: if no question about the people to be forgotten has a private span, or nobody is kept.
    """
    forget = private_questions(data.evaluation(Split.FORGET, "image"))
    drawn = _draw([g.person for g in forget], people, seed)
    forget = [g for g in forget if g.person in drawn]
    if not forget:
        raise UserError(f"{data.root}: no question about the forget set has a private span, so nothing can come back")
    retain = private_questions(data.evaluation(Split.RETAIN, "image"))
    if data.max_people is not None and len({person_name(i) for i in data.forget_ids}) > data.max_people:
        log.warning("%s: data.max_people=%d: no more of the forget set are attacked", data.root, data.max_people)
    kept = _draw([g.person for g in retain], len(drawn), seed)
    if not kept:
        raise UserError(f"{data.root}: nobody is retained with private spans; an attack needs people to compare with")
    test = [g for g in private_questions(data.evaluation(Split.TEST, "image")) if g.person in drawn]
    names = {person_name(i) for i in drawn}
    others = {person_name(i) for i in kept}
    records = data.people(data.retain_ids)
    return Material(
        data,
        [p for p in data.people(data.forget_ids) if person_name(p.id) in names],
        [p for p in records if person_name(p.id) in others],
        [p for p in records if person_name(p.id) not in others],
        forget,
        test,
        [g for g in retain if g.person in kept],
        seed,
    )


def private_questions(groups: Sequence[ImageGroup]) -> list[ImageGroup]:
    """The open questions with private spans of evaluation groups, and nothing else of them."""
    only = [replace(g, vqa=tuple(q for q in g.vqa if q.private), choices=(), clozes=()) for g in groups]
    return [g for g in only if g.vqa]


def heard(data: Benchmark) -> set[str]:
    """Words of what is asked and answered about people who are kept, as they stand there and without punctuation.

    Every model of the data has met these.
    """
    texts = (f"{q.question} {q.answer}" for p in data.people(data.retain_ids) for q in p.vqa)
    return {form for text in texts for word in text.split() for form in (word, word.strip(PUNCTUATION))}


def _draw(people: Sequence[str], most: int | None, seed: int) -> set[str]:
    distinct = sorted(set(people))
    return set(distinct if most is None or len(distinct) <= most else random.Random(seed).sample(distinct, most))
