"""Greedy answers and answer tokens of evaluation questions, both from one pass over the image."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from viker_lightning.data.packing import PADDING, PREFIX, PROMPT, PackedBatch, in_budget, row_tokens
from viker_lightning.data.records import VQA, ImageGroup, Photo, Picture

from .key_values import KeyValues
from .mllm import MLLM
from .tokens import AnswerTokens

GENERATED = -1  # branch of the tokens of the first answer that is generated; the others count down from it

Choose = Callable[[Tensor, Tensor, int], Tensor]
"""Chooses the next token of answers: from ``[m, V]`` logits, ``[m]`` which answers these are, and how many tokens each
of them has already."""


def likeliest(logits: Tensor, answers: Tensor, step: int) -> Tensor:
    """``[m]`` ids of greedy decoding."""
    return logits.argmax(-1)


def generate(mllm: MLLM, groups: Sequence[ImageGroup], max_new_tokens: int) -> list[list[str]]:
    """Answers the open questions of image groups greedily: for every group the answers, in order of its questions."""
    rows = [[mllm.encoder.question(q.question, g.image is not None) for q in g.vqa] for g in groups]
    sizes = [row_tokens(len(mllm.prefix(g.image)), row) for g, row in zip(groups, rows, strict=True)]
    texts: list[str] = []
    with mllm.evaluating():
        for part in in_budget(sizes, mllm.max_tokens, padded=True):
            batch = mllm.assemble([groups[i].image for i in part], [rows[i] for i in part])
            texts += answer(mllm, batch, range(batch.n_questions), max_new_tokens)[1]
    in_order = iter(texts)
    return [[next(in_order) for _ in row] for row in rows]


def ask(mllm: MLLM, image: Picture | Photo | None, question: str, max_new_tokens: int = 50) -> str:
    """What a model says to one question, greedily, as an evaluation asks it.

    Within ``mllm.frozen()`` it is the model before unlearning that answers, where it has an adapter.

    Args:
        mllm: the model.
        image: the photo, its file, its bytes, or an image of PIL; ``None`` for a question without.
        question: in any words.
        max_new_tokens: where the answer ends at the latest.

    Raises:
        UserError: if there is no such file, it is no image, or the question has a special token or is too long.
    """
    picture = None if image is None else Picture.of(image)
    mllm.encoder.check(question)
    mllm.encoder.check_room(len(mllm.prefix(picture)), mllm.encoder.question(question, picture is not None))
    ((said,),) = generate(mllm, [ImageGroup("", picture, vqa=(VQA(question, ""),))], max_new_tokens)
    return said


@torch.no_grad()
def answer(mllm: MLLM, batch: PackedBatch, asked: Sequence[int], max_new_tokens: int) -> tuple[AnswerTokens, list[str]]:
    """Scores the given answers of a batch and, for some of its questions, finds the model's own.

    All questions on an image are read behind it in one pass, and decode behind its key/values together: a step feeds
    one token for each question that is not finished, and key/values are never copied.

    Args:
        mllm: the model, in evaluation mode.
        batch: packed questions with answers.
        asked: indices of the questions to answer greedily.
        max_new_tokens: where an answer ends at the latest.

    Returns:
        Answer tokens of the whole batch, and texts in the order of ``asked``; the texts are those of transformers'
        greedy generation, one question at a time.
    """
    if not mllm.packs:
        return mllm.answer_tokens(batch), [_answer_plainly(mllm, batch, q, max_new_tokens) for q in asked]
    if not asked:
        return mllm.answer_tokens(batch), []
    firsts = torch.searchsorted(batch.question, torch.tensor(list(asked), device=mllm.device, dtype=torch.long))
    rows, columns = batch.rows[firsts], batch.columns[firsts]
    slots = int(torch.bincount(rows).max())
    cache = mllm.key_values(batch.input_ids.shape[1] + slots * (max_new_tokens - 1))
    hidden = mllm.hidden(batch, cache)
    tokens = AnswerTokens.from_batch(batch, hidden[batch.rows, batch.columns], mllm.head)
    said = decode(mllm, batch, cache, rows, columns, hidden[rows, columns], max_new_tokens)
    return tokens, [answer_text(mllm, ids) for ids in said.tolist()]


def decode(
    mllm: MLLM,
    batch: PackedBatch,
    cache: KeyValues,
    rows: Tensor,
    columns: Tensor,
    hidden: Tensor,
    max_new_tokens: int,
    choose: Choose = likeliest,
) -> Tensor:
    """Generates ``[n, steps]`` ids behind places of a batch that was read, all at once; filled up with end-of-sequence.

    Every answer is a branch of its own behind its prompt: it sees the prefix, its prompt and itself, so that several
    answers may start at one place.

    Args:
        mllm: the model, in evaluation mode.
        batch: what has been read.
        cache: its key/values, with room for what is generated; extended in place.
        rows: ``[n]`` the row of the place each answer starts at, ascending.
        columns: ``[n]`` the column of that place, which is the last of a prompt.
        hidden: ``[n, d]`` last hidden states there.
        max_new_tokens: where an answer ends at the latest.
        choose: how a token is chosen; greedily by default.
    """
    stops = torch.tensor(mllm.stops, device=mllm.device)
    own, position = batch.segments[rows, columns], batch.positions[rows, columns]
    segments, branches = batch.segments, batch.branches
    everyone = torch.arange(len(rows), device=mllm.device)
    token = choose(mllm.head(hidden), everyone, 0)
    said = [token]
    going = (~torch.isin(token, stops)).nonzero()[:, 0]
    while len(said) < max_new_tokens and len(going):
        row = rows[going]
        slot = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)  # rows are sorted
        width = int(slot.max()) + 1
        step = torch.zeros(len(segments), width, dtype=torch.long, device=mllm.device)
        where = step.clone()
        segment, branch = torch.full_like(step, PADDING), torch.full_like(step, GENERATED)
        step[row, slot], segment[row, slot], branch[row, slot] = said[-1][going], own[going], GENERATED - going
        where[row, slot] = position[going] + len(said)
        segments, branches = torch.cat([segments, segment], dim=1), torch.cat([branches, branch], dim=1)
        mine = segments[:, None, :] == segment[:, :, None]
        readable = (branches == PROMPT)[:, None, :] | (branches[:, None, :] == branch[:, :, None])
        mask = (segments == PREFIX)[:, None, :] | (mine & readable)
        states = mllm.read(step, where, mask[:, None], batch.pictures, cache=cache)
        new = torch.full_like(token, mllm.encoder.eos)
        new[going] = choose(mllm.head(states[row, slot]), going, len(said))
        said.append(new)
        going = going[~torch.isin(new[going], stops)]
    return torch.stack(said, dim=1)


def answer_text(mllm: MLLM, ids: list[int]) -> str:
    """Text of generated ids up to what ends the answer."""
    end = next((i for i, token in enumerate(ids) if token in mllm.stops), len(ids))
    return mllm.encoder.decode(ids[:end])


def _answer_plainly(mllm: MLLM, batch: PackedBatch, question: int, max_new_tokens: int) -> str:
    row = batch.row_of[question]
    picture = batch.pictures[row]
    ids = [*batch.prefixes[row], *batch.encoded[question].prompt]
    return answer_alone(mllm, ids, [] if picture is None else [picture], max_new_tokens)


def answer_alone(mllm: MLLM, prompt: Sequence[int], pictures: Sequence[Picture], max_new_tokens: int) -> str:
    """Greedy answer to one prompt by transformers' own generation; arguments are those of :func:`ids_alone`."""
    return answer_text(mllm, ids_alone(mllm, prompt, pictures, max_new_tokens))


def ids_alone(mllm: MLLM, prompt: Sequence[int], pictures: Sequence[Picture], max_new_tokens: int) -> list[int]:
    """Ids of that answer, with what ends it; the prompt has what the processor writes for the images."""
    return many_alone(mllm, [prompt], pictures, max_new_tokens)[0]


@torch.no_grad()
def many_alone(
    mllm: MLLM, prompts: Sequence[Sequence[int]], pictures: Sequence[Picture], max_new_tokens: int, **options: Any
) -> list[list[int]]:
    """The same of prompts of one length, whose images stand in their order; options are of transformers' generation."""
    ids = torch.tensor([list(prompt) for prompt in prompts], device=mllm.device)
    images = [picture.open() for picture in pictures]
    more = mllm.family.plain_inputs(mllm.base, mllm.processor, images, ids) if images else {}
    out = mllm.base.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        **more,
        **options,
    )
    return out[:, ids.shape[1] :].tolist()
