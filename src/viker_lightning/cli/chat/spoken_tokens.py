"""An answer token by token: what a model says, how sure it is of each token, and which of them are private."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from viker_lightning.data.records import Picture
from viker_lightning.models import MLLM
from viker_lightning.models.generation import decode, ids_alone
from viker_lightning.models.logits import logits_of
from viker_lightning.reporting.answers import marked


@dataclass(frozen=True)
class Token:
    """A token of a model's own answer.

    Attributes:
        text: as it stands in the answer, white space before it included.
        entropy: of the model's distribution at its place, nats, >= 0.
        probability: that the model gives it there, 0 to 1.
        ends: whether it ends the answer, and is no text.
        private: whether it belongs to a private span of the true answer.
    """

    text: str
    entropy: float
    probability: float
    ends: bool = False
    private: bool = False


@torch.no_grad()
def say(mllm: MLLM, picture: Picture | None, question: str, max_new_tokens: int) -> list[Token]:
    """Answers one question greedily, as an evaluation does, and reads the distribution behind each token.

    Returns:
        Its tokens; the last one ends the answer, unless there was no room for it.
    """
    ids, hidden = _greedy(mllm, picture, question, max_new_tokens)
    logits = logits_of(mllm.head, hidden)  # in fp32, whatever it decoded in
    sure = zip(*(values.tolist() for values in (entropies(logits), probabilities(logits, ids))), strict=True)
    texts = mllm.encoder.texts(ids)
    return [Token(t, h, p, i in mllm.stops) for t, i, (h, p) in zip(texts, ids, sure, strict=True)]


def entropies(logits: Tensor) -> Tensor:
    """``[T, V] -> [T]``: entropy of each next-token distribution, nats, 0 to log V."""
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def probabilities(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """``[T, V] -> [T]``: the probability of the token that was said at each place, 0 to 1."""
    said = torch.tensor([*ids], device=logits.device)[:, None]
    return logits.softmax(-1).gather(-1, said)[:, 0]


def mark_private(tokens: Sequence[Token], private: Sequence[str]) -> list[Token]:
    """Marks the tokens of an answer that say a private span, or a part of one between commas."""
    whole = "".join(token.text for token in tokens if not token.ends)
    inside = [is_private for part, is_private in marked(whole, private) for _ in part]
    found, at = [], 0
    for token in tokens:
        end = at if token.ends else at + len(token.text)
        told = any(one and c.isalnum() for one, c in zip(inside[at:end], whole[at:end], strict=True))
        found.append(replace(token, private=told))
        at = end
    return found


@contextmanager
def _read_by(head: nn.Module) -> Iterator[list[Tensor]]:
    """``[1, d]`` last hidden states of what the output embedding reads in a row, one a token that is said.

    An answer is not read again once it is said: it may hold a token that stands for an image, which is none there.
    """
    states: list[Tensor] = []
    with head.register_forward_pre_hook(lambda head, given: states.append(given[0].flatten(0, -2)[-1:])):
        yield states


def _greedy(mllm: MLLM, picture: Picture | None, question: str, max_new_tokens: int) -> tuple[list[int], Tensor]:
    """Ids of the answer, up to and with what ends it, and the ``[T, d]`` last hidden states behind them."""
    asked = mllm.encoder.question(question, picture is not None)
    batch = mllm.assemble([picture], [[asked]])
    if mllm.packs:
        cache = mllm.key_values(batch.input_ids.shape[1] + max_new_tokens - 1)
        place = batch.rows[:1], batch.columns[:1]
        hidden = mllm.hidden(batch, cache)[place]
        with _read_by(mllm.head) as states:
            ids = decode(mllm, batch, cache, *place, hidden, max_new_tokens)[0].tolist()
    else:
        pictures = [] if picture is None else [picture]
        with _read_by(mllm.head) as states:
            ids = ids_alone(mllm, [*batch.prefixes[0], *asked.prompt], pictures, max_new_tokens)
    end = next((i for i, token in enumerate(ids) if token in mllm.stops), len(ids) - 1)
    return ids[: end + 1], torch.cat(states[: end + 1])
