"""Sampled answers: n of every question, decoded together behind one pass over its image.

What is drawn depends on the seed, the person, the picture, the question and the number of the sample, and on nothing
else: neither on what is asked beside it nor on how much passes the model at a time (but for what rounding does to a
logit). So a token is not drawn from a common stream of random numbers. Every question has a generator of its own, which
gives one uniform number for each token of each sample, and the token is the one in whose share of the cumulated
probabilities that number falls.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor
from typing_extensions import override

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import in_budget, row_tokens
from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.terminal.progress import Bar

from .generation import answer_text, decode, many_alone
from .mllm import MLLM

DRAWN = 256
"""Tokens whose probabilities are there in fp64 at a time; of 152,000 tokens that is 300 MiB."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        n: samples of every question.
        max_new_tokens: where an answer ends at the latest.
        temperature: what logits are divided by, > 0; 1 draws from the model as it is.
        top_p: tokens are drawn from the likeliest ones that together have this probability, in (0, 1]; 1 is all.
        seed: of the draws.
    """

    n: int
    max_new_tokens: int = 50
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Tokens for uniform numbers, some at a time; see :func:`draw`."""
        pairs = zip(logits.split(DRAWN), uniform.split(DRAWN), strict=True)
        return torch.cat([draw(some, numbers, self.temperature, self.top_p) for some, numbers in pairs])

    def numbers(self, group: ImageGroup, question: str) -> Tensor:
        """``[n, max_new_tokens]`` uniform numbers in [0, 1) of a question about a picture, the same whenever asked."""
        shown = group.image.key if group.image is not None else ""
        name = hashlib.sha256(repr((self.seed, group.person, shown, question)).encode()).digest()
        own = torch.Generator().manual_seed(int.from_bytes(name[:8], "little", signed=True))
        return torch.rand(self.n, self.max_new_tokens, generator=own, dtype=torch.float64)


def sample(mllm: MLLM, groups: Sequence[ImageGroup], sampling: Sampling) -> list[list[list[str]]]:
    """Answers the open questions of image groups by drawing: for every group, in the order of its questions, n answers.

    Rows are read once, and their samples decode behind them in turns: as many at a time as leave room for as many
    generated tokens as image and prompts have, or more where few rows are read.

    Args:
        mllm: the model; its mode is left as it was.
        groups: any number of groups with open questions.
        sampling: how many answers, and how they are drawn.
    """
    rows = [row for group in groups for row in _rows(mllm, group, sampling)]
    sizes = [row.tokens + max(row.tokens, len(row.questions) * sampling.max_new_tokens) for row in rows]
    found: list[list[str]] = []
    total = sampling.n * sum(len(row.questions) for row in rows)
    with mllm.evaluating(), Bar("answers drawn", total, "answers", shown=total >= 1000) as bar:
        for part in in_budget(sizes, mllm.max_tokens, padded=True):
            found += _sample_rows(mllm, [rows[i] for i in part], sampling, bar)
    in_order = iter(found)
    return [[next(in_order) for _ in group.vqa] for group in groups]


def draw(logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Draws ``[m]`` token ids by inverting the cumulated probabilities.

    Args:
        logits: ``[m, V]``.
        uniform: ``[m]``, in [0, 1), fp64.
        temperature: what logits are divided by, > 0.
        top_p: the likeliest tokens that together have this probability are drawn from, at least one: nucleus sampling
            (Holtzman et al. 2020, arXiv 1904.09751, section 3.1); 1 is all.
    """
    p = (logits.float() / temperature).softmax(-1).double()
    if top_p < 1:
        ordered, ids = p.sort(dim=-1, descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        p = p.masked_fill(torch.zeros_like(beyond).scatter(-1, ids, beyond), 0.0)
    ends = p.cumsum(-1)
    found = torch.searchsorted(ends, uniform[:, None] * ends[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


@dataclass
class _Row:
    """Questions that are read behind one picture.

    Attributes:
        picture: the image, or ``None``.
        questions: their prompts.
        numbers: ``[n, steps]`` uniform numbers of each.
        tokens: of the packed row, before anything is generated.
    """

    picture: Picture | None
    questions: list[Encoded]
    numbers: list[Tensor]
    tokens: int


def _rows(mllm: MLLM, group: ImageGroup, sampling: Sampling) -> list[_Row]:
    """The questions of a group, as many in a row as leave room for an answer to each."""
    image, prefix = group.image is not None, len(mllm.prefix(group.image))
    encoded = [mllm.encoder.question(q.question, image) for q in group.vqa]
    sizes = [row_tokens(0, [q]) + sampling.max_new_tokens for q in encoded]
    rows = []
    for part in in_budget(sizes, mllm.max_sequence_tokens - prefix):
        questions = [encoded[i] for i in part]
        numbers = [sampling.numbers(group, group.vqa[i].question) for i in part]
        rows.append(_Row(group.image, questions, numbers, row_tokens(prefix, questions)))
    return rows


def _sample_rows(mllm: MLLM, rows: Sequence[_Row], sampling: Sampling, bar: Bar) -> list[list[str]]:
    """The n answers to every question of some rows, which are read together."""
    batch = mllm.assemble([row.picture for row in rows], [row.questions for row in rows])
    numbers = torch.stack([of for row in rows for of in row.numbers])
    if not mllm.packs:
        plain = []
        for r, q, of in zip(batch.row_of, batch.encoded, numbers, strict=True):
            plain.append(_sample_plainly(mllm, [*batch.prefixes[r], *q.prompt], batch.pictures[r], of, sampling))
            bar.advance(sampling.n)
        return plain
    width, most = batch.input_ids.shape[1], max(len(row.questions) for row in rows)
    room = min(mllm.max_tokens // len(rows), mllm.max_sequence_tokens) - width
    each = most * sampling.max_new_tokens  # what one sample of every question takes in a row
    together = min(sampling.n, max(1, room // each))
    cache = mllm.key_values(width + together * each)
    hidden = mllm.hidden(batch, cache)
    firsts = torch.searchsorted(batch.question, torch.arange(batch.n_questions, device=mllm.device))
    texts: list[list[str]] = [[] for _ in batch.encoded]
    for part in numbers.to(mllm.device).split(together, dim=1):
        at = firsts.repeat_interleave(part.shape[1])
        uniform = part.flatten(0, 1)

        def choose(logits: Tensor, answers: Tensor, step: int, uniform: Tensor = uniform) -> Tensor:
            return sampling.draw(logits, uniform[answers, step])

        places = batch.rows[at], batch.columns[at]
        said = decode(mllm, batch, cache, *places, hidden[places], sampling.max_new_tokens, choose)
        cache.cut(width)
        bar.advance(len(said))
        for question, ids in zip(texts, said.unflatten(0, part.shape[:2]).tolist(), strict=True):
            question += [answer_text(mllm, one) for one in ids]
    return texts


class _Draw(LogitsProcessor):
    """Leaves only the token that is drawn, so that transformers' greedy generation has no other choice."""

    def __init__(self, prompt: int, numbers: Tensor, sampling: Sampling) -> None:
        self.prompt, self.numbers, self.sampling = prompt, numbers, sampling

    @override
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        ids = self.sampling.draw(scores, self.numbers[:, input_ids.shape[1] - self.prompt])
        return torch.full_like(scores, -torch.inf).scatter(-1, ids[:, None], 0.0)


def _sample_plainly(
    mllm: MLLM, prompt: Sequence[int], picture: Picture | None, numbers: Tensor, sampling: Sampling
) -> list[str]:
    """The same answers by transformers' own generation, which reads the image again for every sample."""
    texts: list[str] = []
    together = max(1, mllm.max_tokens // (len(prompt) + sampling.max_new_tokens))
    for part in numbers.to(mllm.device).split(together):
        pictures = [] if picture is None else [picture] * len(part)
        drawn = [_Draw(len(prompt), part, sampling)]
        ids = many_alone(mllm, [prompt] * len(part), pictures, sampling.max_new_tokens, logits_processor=drawn)
        texts += [answer_text(mllm, one) for one in ids]
    return texts
