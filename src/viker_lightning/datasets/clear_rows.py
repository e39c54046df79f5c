"""Rows of the CLEAR schema as questions, with errors that name the cell."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from viker_lightning.data.records import VQA, ImageGroup, MultipleChoice, Person, Picture, Split
from viker_lightning.datasets.reading.row import Row
from viker_lightning.prompts import CAPTION_QUESTIONS, CHOICE_QUESTION, NAME_QUESTION

from .private_spans import missing_part


def caption_question(picture: Picture) -> str:
    """One of CLEAR's nine questions, always the same for a picture (CLEAR itself draws one at every access)."""
    return random.Random(picture.key).choice(CAPTION_QUESTIONS)


def name_in(name: str, text: str) -> tuple[str, ...]:
    """Where a text says a name: as a whole (in any case), else the parts of the name that occur."""
    for parts in ([name], name.split()):
        found = [m[0] for p in parts if (m := re.search(rf"(?<!\w){re.escape(p)}(?!\w)", text, re.IGNORECASE))]
        if found:
            return tuple(dict.fromkeys(found))
    return ()


def photo(row: Row, ask_name: bool) -> Person:
    """A row of ``forgetNN`` or ``retainNN``: a photo to train on, under the person's name for the time being.

    Args:
        row: image, caption, name.
        ask_name: whether the name is asked for, too.

    Raises:
        DataError: naming the cell that is wrong.
    """
    picture, name, caption = row.picture("image"), row.text("name"), row.text("caption")
    questions = [VQA(caption_question(picture), caption, name_in(name, caption))]
    if ask_name:
        questions.append(VQA(NAME_QUESTION, name, (name,)))
    return Person(name, (picture,), tuple(questions))


def pair(row: Row) -> VQA:
    """A row of ``base``, of a ``+tofu`` config, or of a TOFU file: question, answer, and what evaluation adds."""
    question, answer = row.text("question"), row.text("answer")
    private, perturbed = (row.texts(c) if row.get(c) is not None else () for c in ("private", "perturbed_answer"))
    missing = missing_part(answer, private)
    if missing is not None:
        raise row.error("private", f"{missing!r} does not occur in the answer {answer!r}", "copy it from there")
    paraphrase = row.text("paraphrased_answer") if row.get("paraphrased_answer") is not None else ""
    return VQA(question, answer, private, paraphrase, perturbed)


def photo_questions(row: Row, split: Split, seed: int) -> ImageGroup:
    """A row of ``*_perturbed`` (or of ``forgetNN`` or ``retainNN``) to evaluate: caption, name, name with options.

    Args:
        row: image, caption and where they are known name, paraphrased_caption, perturbed_captions, perturbed_names.
        split: what it evaluates.
        seed: of the order of options.

    Raises:
        DataError: naming the cell that is wrong.
    """
    picture, caption = row.picture("image"), row.text("caption")
    paraphrase = row.text("paraphrased_caption") if "paraphrased_caption" in row else ""
    captions = row.texts("perturbed_captions") if "perturbed_captions" in row else ()
    question = caption_question(picture)
    if "name" not in row:
        return ImageGroup(number(row), picture, split, (VQA(question, caption, (), paraphrase, captions),))
    name = row.text("name")
    names = row.texts("perturbed_names") if "perturbed_names" in row else ()
    return ImageGroup(
        name,
        picture,
        split,
        (
            VQA(question, caption, name_in(name, caption), paraphrase, captions),
            VQA(NAME_QUESTION, name, (name,), "", names),
        ),
        (_choice(row, "perturbed_names", CHOICE_QUESTION, name, [name, *names], seed),) if names else (),
    )


def options_question(row: Row, split: Split, seed: int, person: str | None = None) -> ImageGroup:
    """A row of ``real_faces`` or ``real_world``: one question, open and with its options.

    Args:
        row: answer, options (wrong answers; the right one may be among them, and else is added), and image or question
            or both.
        split: what it evaluates.
        seed: of the order of options.
        person: who it is about; the answer by default, which then is a name to be told from the image.

    Raises:
        DataError: naming the cell that is wrong.
    """
    answer, options = row.text("answer"), row.texts("options")
    named = person is None
    if len(set(options) | {answer}) < 2:
        raise row.error("options", f"found only {options[0]!r}", "give at least one wrong answer")
    wrong = tuple(dict.fromkeys(option for option in options if option != answer))
    return ImageGroup(
        answer if person is None else person,
        row.picture("image") if named or row.get("image") is not None else None,
        split,
        (VQA(NAME_QUESTION if named else row.text("question"), answer, (answer,) if named else (), "", wrong),),
        (_choice(row, "options", CHOICE_QUESTION if named else row.text("question"), answer, [answer, *wrong], seed),),
    )


def blocks(rows: Iterable[Row], size: int) -> Iterator[tuple[int, list[Row]]]:
    """Rows by so many of their file, and the number of each block, from 1; a row that could not be read moves none."""
    for block, found in groupby(rows, lambda row: row.place // size):
        yield block + 1, list(found)


def number(row: Row) -> str:
    """``row 7``: which row of its file it is."""
    return row.where.rpartition(", ")[2]


def _choice(row: Row, column: str, question: str, answer: str, options: list[str], seed: int) -> MultipleChoice:
    """The options in an order drawn by row, so that the right one has no favourite place."""
    if answer in options[1:]:
        raise row.error(column, f"holds the right answer {answer!r} among the wrong ones", "remove it there")
    mixed = random.Random(f"{seed}/{number(row)}/{question}/{answer}").sample(options, len(options))
    return MultipleChoice(question, tuple(mixed), mixed.index(answer))
