"""What a run will ask: steps, questions, tokens of the largest pass, and what of frozen models' words is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from viker_lightning.data.datasets.base import GROUPS_PER_BATCH, Benchmark
from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import ImageGroup, Labels
from viker_lightning.ideal.distribution import QUESTIONS_PER_PART
from viker_lightning.ideal.own_reference import OwnReference
from viker_lightning.ideal.prefix import LEAST_TOKENS
from viker_lightning.methods import Strangers
from viker_lightning.models import MLLM
from viker_lightning.training import Unlearn
from viker_lightning.training.base import Stage
from viker_lightning.training.step import Groups, cut

from .estimates import Load, reference_bytes

LOOKED_AT = 200
"""Steps of the first epoch that are looked at, at most, for the largest pass and for means."""


@dataclass(frozen=True)
class Steps:
    """Steps as they will be.

    Attributes:
        tokens: of the largest part of a step, padding included, all streams together.
        answers: most answer tokens of a part.
        seen: most places of a part's masks of attention.
        questions: of a step, as a mean.
        trained_on: answer tokens of a step, as a mean.
    """

    tokens: int
    answers: int
    seen: int
    questions: float
    trained_on: float


@dataclass(frozen=True)
class Stored:
    """Bytes of what frozen models say, by where it is kept.

    Attributes:
        disk: in the cache folder, which runs share; what is there already counts, too.
        memory: of the machine, never of a GPU.
        checkpoint: of what is in memory, what a checkpoint repeats.
    """

    disk: int = 0
    memory: int = 0
    checkpoint: int = 0


def number_of_steps(max_steps: int, max_epochs: int | None, epoch: int) -> float:
    """Steps of a run; infinite if neither limit is set.

    Args:
        max_steps: of the trainer; -1 for no limit.
        max_epochs: of the trainer; ``None`` or -1 for no limit.
        epoch: steps of an epoch.
    """
    limits = [max_steps] * (max_steps >= 0) + [(max_epochs or 0) * epoch] * (max_epochs is not None and max_epochs >= 0)
    return min(limits, default=math.inf)


def look_at_steps(stage: Stage, mllm: MLLM) -> Steps:
    """The first steps of the first epoch, cut into parts as training cuts them; see :data:`LOOKED_AT`.

    Questions with other answers and about strangers are made when training starts: the forget questions stand for them.

    Raises:
        UserError: if a question takes more tokens than a sequence may have, or the model has positions.
    """
    data = stage.data
    limit = data.batch_size if data.batches_per_step > 1 else None
    loader = data.train_dataloader()
    tokens = answers = seen = steps = questions = trained_on = 0
    for step, bundle in enumerate(islice(iter(loader), LOOKED_AT)):
        groups = _asked(stage, bundle.content, step)
        for part in cut(mllm, groups, limit, stage.whole_steps):
            streams = [[_row(mllm, group) for group in some] for some in part.values() if some]
            said = sum(row.answers for rows in streams for row in rows)
            tokens = max(tokens, sum(_padded(rows) for rows in streams))
            seen = max(seen, sum(_padded(rows) * _behind(rows) for rows in streams))
            answers, trained_on = max(answers, said), trained_on + said
        questions += sum(len(group.vqa) for some in groups.values() for group in some)
        steps = step + 1
    return Steps(tokens, answers, seen, questions / max(1, steps), trained_on / max(1, steps))


def _asked(stage: Stage, content: Groups, step: int) -> Groups:
    """The image groups of a step by the streams of the method."""
    if not isinstance(stage, Unlearn):
        return {name: stage.labelled(groups, step) for name, groups in content.items()}
    names = {stream: stream if stream in content else "forget" for stream in stage.method.streams}
    return {stream: stage.labelled(content[name], step) for stream, name in names.items() if name in content}


@dataclass(frozen=True)
class Row:
    """Tokens of a packed row, those before its questions, and answer tokens."""

    tokens: int
    prefix: int
    answers: int


def _row(mllm: MLLM, group: ImageGroup) -> Row:
    prefix, questions = len(mllm.prefix(group.image)), _encoded(mllm, group)
    for question in questions:
        mllm.encoder.check_room(prefix, question)
    return Row(row_tokens(prefix, questions), prefix, sum(len(question.answer) for question in questions))


def _padded(rows: Sequence[Row]) -> int:
    """Tokens of rows that pass together."""
    return len(rows) * max(row.tokens for row in rows)


def _behind(rows: Sequence[Row]) -> int:
    """Columns of rows that pass together for which there is a mask: those behind what all of them begin with."""
    return max(row.tokens for row in rows) - min(row.prefix for row in rows)


def _encoded(mllm: MLLM, group: ImageGroup) -> list[Encoded]:
    return [mllm.encoder.encode(vqa, group.image is not None) for vqa in group.vqa]


def largest_evaluation(mllm: MLLM, data: Benchmark, max_new_tokens: int) -> int:
    """Tokens of the largest pass of an evaluation, padding and room for generated ones included.

    Args:
        mllm: encodes the questions.
        data: of the run.
        max_new_tokens: most tokens of an answer that is generated.
    """
    found = 0
    for batch in data.evaluation_dataloader():
        groups = [group for group in batch.content if group.vqa]
        assert len(groups) <= GROUPS_PER_BATCH
        sizes = [_row(mllm, group).tokens for group in groups]
        for part in in_budget(sizes, mllm.max_tokens, padded=True):
            room = max(sizes[i] + len(groups[i].vqa) * max_new_tokens for i in part)
            found = max(found, len(part) * room)
    return found


def every_group(stage: Unlearn, stream: str) -> list[ImageGroup]:
    """All questions of a stream with every image they may be asked about.

    Questions with other answers, and those about strangers, are stood for by the forget questions; the latter behind
    as many pictures as there are strangers.
    """
    people = stage.data.streams.get(stream, stage.data.streams["forget"])
    groups = [ImageGroup(p.id, i, vqa=p.vqa) for p in people for i in p.images or (None,)]
    groups = [replace(g, vqa=tuple(replace(vqa, labels=stage.labels) for vqa in g.vqa)) for g in groups]
    if stream != "strangers":
        return groups
    vqa = tuple(dict.fromkeys(vqa for group in groups if group.image is not None for vqa in group.vqa))
    picture = next((group.image for group in groups if group.image is not None), None)
    count = range(stage.method.pictures_needed["strangers"][1])
    return [ImageGroup(f"stranger {i}", picture, vqa=vqa) for i in count]


def ideal_questions(stage: Unlearn, mllm: MLLM) -> tuple[list[Encoded], int, list[Encoded], int]:
    """What is asked behind many pictures before the first step, as ``References.prepare`` does.

    Returns:
        Questions of the ideal distribution and vectors a token; those behind strangers, where these are asked apart,
        and vectors a token. Empty, and 0, where nothing is asked.
    """
    method, pictures = stage.method, stage.method.pictures_needed
    strangers = method.streams.get("strangers")
    behind = isinstance(strangers, Strangers) and not strangers.rehearsal and strangers.own in ("log_prob", "kl")
    behind = behind and stage.engine.references != "off" and not method.layers and stage.labels != Labels.TEXT
    shared = behind and pictures.get("irrelevant") == pictures["strangers"]
    streams = [name for name, stream in method.streams.items() if stream.irrelevant]
    asked = {q: None for stream in streams for group in every_group(stage, stream) for q in _encoded(mllm, group)}
    others: dict[Encoded, None] = {}
    if behind:
        shown = [group for group in every_group(stage, "forget") if group.image is not None]
        others = {q: None for group in shown for q in _encoded(mllm, group)}
    if shared:
        return [*(asked | others)], pictures["irrelevant"][1] + 1, [], 0
    return [*asked], int(bool(streams)), [*others], pictures["strangers"][1] + 1 if behind else 0


def stored(stage: Stage, mllm: MLLM, hidden: int) -> Stored:
    """Bytes of what frozen models say, as far as it is kept.

    Ideal distributions are counted question by question, exactly, but for a few answers that only the report asks
    about. What is said behind single images is counted as if
    every question were asked behind each of its person's photos: with LoRA it is kept in memory as it is asked, up to a
    limit; without, all of it is kept beforehand.

    Args:
        stage: of the run.
        mllm: encodes the questions.
        hidden: width of the decoder.
    """
    if not isinstance(stage, Unlearn) or stage.engine.references == "off":
        return Stored()
    ideal, vectors, others, more = ideal_questions(stage, mllm)
    beforehand = reference_bytes(_answers(ideal), hidden, vectors) + reference_bytes(_answers(others), hidden, more)
    single = 0
    for stream, need in stage.method.streams.items():
        for name, level in need.levels.items():
            if name == "irrelevant" or level == "full" or (stream == "strangers" and more):
                continue
            groups = every_group(stage, stream)
            tokens = sum(len(q.answer) for group in groups for q in _encoded(mllm, group))
            vector = hidden if level == "kl" else 0
            single += reference_bytes(tokens, vector) + tokens * len(stage.method.layers) * hidden * 4
    on_disk = stage.engine.references == "disk"
    if stage.lora is None:
        beforehand, single = beforehand + single, 0
    single = min(single, OwnReference.MEMORY_LIMIT)
    checkpoint = single if single <= OwnReference.CHECKPOINT_LIMIT else 0
    return Stored(beforehand * on_disk, beforehand * (not on_disk) + single, checkpoint)


def _answers(questions: Sequence[Encoded]) -> int:
    return sum(len(question.answer) for question in questions)


def behind_images(stage: Stage, mllm: MLLM) -> tuple[int, int]:
    """The largest pass behind irrelevant images or strangers.

    An image of them is taken to have as many positions as the largest training photo.

    Returns:
        Tokens with key/values, those of all images included, and answer tokens behind one of them.
    """
    if not isinstance(stage, Unlearn):
        return 0, 0
    found = [(0, 0)]
    ideal, _, others, _ = ideal_questions(stage, mllm)
    people = stage.data.streams["forget"]
    image = max((len(mllm.prefix(picture)) for person in people for picture in person.images), default=0)
    for questions, name in ((ideal, "irrelevant"), (others, "strangers")):
        _, k = stage.method.pictures_needed.get(name, ("", 1))
        budget = max(LEAST_TOKENS, mllm.max_tokens // k)
        for some in _parts(questions):
            sizes = [row_tokens(0, [q]) for q in some]
            for part in in_budget(sizes, budget):
                width = row_tokens(0, [some[i] for i in part])
                found.append((k * (image + width), sum(len(some[i].answer) for i in part)))
    return max(tokens for tokens, _ in found), max(answers for _, answers in found)


def _parts(questions: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    for first in range(0, len(questions), QUESTIONS_PER_PART):
        yield questions[first : first + QUESTIONS_PER_PART]


def load_of(stage: Stage, mllm: MLLM, steps: Steps, max_new_tokens: int) -> Load:
    """What passes the model at once, of the whole run."""
    asked, asked_answers = behind_images(stage, mllm)
    evaluated = largest_evaluation(mllm, stage.data, max_new_tokens)
    return Load(steps.tokens, steps.answers, steps.seen, evaluated, asked, asked_answers)
