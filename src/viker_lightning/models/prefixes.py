"""Greedy answers to prompts that begin alike: what they share is read once, and all are read behind its key/values.

Prompts are laid out one behind the other in one sequence, each without what it shares with the one before it, so that
it continues tokens which stand there already:

    tokens    : examples, picture A, question 1, question 2, picture B, question 3
    positions : every token has that of its own prompt
    attention : a token sees its own prompt up to itself, wherever those tokens stand
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from viker_lightning.data.packing import in_budget
from viker_lightning.data.records import Picture

from .generation import answer_alone, answer_text
from .key_values import KeyValues
from .mllm import MLLM


@dataclass(frozen=True)
class Prompt:
    """A whole prompt.

    Attributes:
        ids: token ids, with what the processor writes for images.
        pictures: the images, in the order in which they stand in the prompt.
    """

    ids: Sequence[int]
    pictures: Sequence[Picture] = ()


class PromptPrefixes:
    """Beginnings of prompts with their key/values, so that later prompts continue them.

    Key/values of at most ``mllm.max_tokens`` tokens are kept, those used last. They belong to the weights that made
    them: whoever changes weights starts with a new object.

    Args:
        mllm: the model, in evaluation mode whenever it is asked.
    """

    def __init__(self, mllm: MLLM) -> None:
        self.mllm = mllm
        self._kept: OrderedDict[Hashable, tuple[Tensor, KeyValues]] = OrderedDict()

    @torch.no_grad()
    def answers(self, name: Hashable, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """Answers prompts greedily.

        Args:
            name: what the prompts begin with; under it their common beginning is found again.
            prompts: those which share more than the beginning stand next to each other.
            max_new_tokens: where an answer ends at the latest.

        Returns:
            Texts in the order of the prompts: those of transformers' greedy generation, one prompt at a time.
        """
        mllm = self.mllm
        window = getattr(mllm.base.config.get_text_config(), "sliding_window", None)
        longest = max((len(p.ids) for p in prompts), default=0) + max_new_tokens
        if not mllm.packs or (window is not None and window < longest):
            return [answer_alone(mllm, p.ids, p.pictures, max_new_tokens) for p in prompts]
        laid = [_PromptTensors.from_prompt(mllm, p, self._image) for p in prompts]
        shared = [*(len(p.ids) for p in laid[:1]), *(_shared_length(a.marked, b.marked) for a, b in pairwise(laid))]
        own = [len(p.ids) - s + max_new_tokens for p, s in zip(laid, shared, strict=True)]
        texts: list[str] = []
        for part in in_budget(own, mllm.max_sequence_tokens):
            said = self._pass(name, [laid[i] for i in part], [shared[i] for i in part[1:]], max_new_tokens)
            texts += [answer_text(mllm, ids) for ids in said.tolist()]
        return texts

    @cached_property
    def _image(self) -> int:
        return int(self.mllm.encoder.tokenizer.get_vocab()[self.mllm.encoder.template.image_token])

    def _pass(self, name: Hashable, prompts: list["_PromptTensors"], shared: list[int], max_new_tokens: int) -> Tensor:
        """``[n, steps]`` ids generated behind prompts that share so many tokens, each with the one before it."""
        mllm = self.mllm
        beginning = prompts[0].marked[: min([*shared, *(len(p.ids) - 1 for p in prompts)])]
        known, cache = self._kept.pop(name, (beginning[:0], None))
        kept = _shared_length(known, beginning)
        row = _Row.lay_out(prompts, [kept, *shared])
        room = row.width + len(prompts) * (max_new_tokens - 1)
        if cache is None or not kept:
            cache = mllm.key_values(room)
        else:
            cache.cut(kept)
            cache.resize(room)
        causal = 0 if kept else len(beginning)
        hidden = mllm.run(
            row.ids[None].to(mllm.device),
            row.positions.to(mllm.device),
            row.mask[None, None, causal:].to(mllm.device),
            mllm.vision.features(mllm.base, row.images),
            cache,
            causal,
        )[0]
        last = torch.stack([path[-1] for path in row.paths]) - kept
        ends = torch.stack([p.end for p in prompts])
        said = self._decode(row, ends, hidden[last.to(mllm.device)], cache, max_new_tokens)
        if len(beginning):
            cache.cut(len(beginning))
            cache.resize(len(beginning))
            self._kept[name] = beginning, cache
            while sum(cache.room for _, cache in self._kept.values()) > mllm.max_tokens:
                self._kept.popitem(last=False)
        return said

    def _decode(self, row: "_Row", ends: Tensor, hidden: Tensor, cache: KeyValues, max_new_tokens: int) -> Tensor:
        """``[n, steps]`` generated ids, filled up with end-of-sequence."""
        mllm, device = self.mllm, self.mllm.device
        stops = torch.tensor(mllm.stops, device=device)
        seen = torch.zeros(len(row.paths), cache.room, dtype=torch.bool)
        for i, path in enumerate(row.paths):
            seen[i, path] = True
        seen, ends = seen.to(device), ends.to(device)
        axes, width = row.positions.shape[:-1], row.width
        token = mllm.head(hidden).argmax(-1)
        said = [token]
        going = (~torch.isin(token, stops)).nonzero()[:, 0]
        while len(said) < max_new_tokens and len(going):
            columns = torch.arange(width, width := width + len(going), device=device)
            seen[going, columns] = True
            positions = (ends[going] + len(said) - 1).expand(*axes, -1)
            states = mllm.run(said[-1][None, going], positions, seen[None, None, going, :width], cache=cache)
            new = torch.full_like(token, mllm.encoder.eos)
            new[going] = mllm.head(states[0]).argmax(-1)
            said.append(new)
            going = going[~torch.isin(new[going], stops)]
        return torch.stack(said, dim=1)


@dataclass
class _PromptTensors:
    """A prompt as tensors.

    Attributes:
        ids: ``[T]``.
        marked: ``[T]``: the ids, but at positions of an image a number of that image.
        positions: ``[1, T]``, or ``[axes, 1, T]``: as the model counts them.
        end: the position behind the last token.
        pictures: each with the column of its first position.
    """

    ids: Tensor
    marked: Tensor
    positions: Tensor
    end: Tensor
    pictures: list[tuple[int, Picture]]

    @classmethod
    def from_prompt(cls, mllm: MLLM, prompt: Prompt, image: int) -> "_PromptTensors":
        """Finds the images of a prompt, whose positions have this token id."""
        ids = torch.tensor(list(prompt.ids))
        marked, columns, token = ids.clone(), ids.eq(image).nonzero()[:, 0], mllm.encoder.template.image_token
        pictures, at = [], 0
        for picture in prompt.pictures:
            size = mllm.family.image_text(token, mllm.vision.shape(mllm.base, picture)).count(token)
            marked[columns[at : at + size]] = -1 - int(picture.key[:15], 16)
            pictures.append((int(columns[at]), picture))
            at += size
        positions = mllm.positions(len(ids), pictures)
        return cls(ids, marked, positions, positions.amax() + 1, pictures)


@dataclass
class _Row:
    """Prompts one behind the other, each without what it shares with the one before it.

    Attributes:
        ids: ``[T]``, without what is kept of the first prompt.
        positions: ``[1, T]`` or ``[axes, 1, T]``.
        mask: bool ``[T, width]``, true where a token may look.
        images: those in these tokens, in order.
        paths: of each prompt, the columns of its tokens, what is kept included.
        width: columns of all tokens, what is kept included.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    images: list[Picture]
    paths: list[Tensor]
    width: int

    @classmethod
    def lay_out(cls, prompts: Sequence["_PromptTensors"], shared: Sequence[int]) -> "_Row":
        """Lays out prompts; the first shares with what is kept."""
        pairs = list(zip(prompts, shared, strict=True))
        kept = shared[0]
        path, width, paths = torch.arange(kept), kept, []
        for p, s in pairs:
            path = torch.cat([path[:s], torch.arange(width, width := width + len(p.ids) - s)])
            paths.append(path)
        mask = torch.zeros(width - kept, width, dtype=torch.bool)
        for path, s in zip(paths, shared, strict=True):
            mask[path[s:, None] - kept, path] = torch.ones(len(path) - s, len(path), dtype=torch.bool).tril(s)
        return cls(
            torch.cat([p.ids[s:] for p, s in pairs]),
            torch.cat([p.positions[..., s:] for p, s in pairs], dim=-1),
            mask,
            [picture for p, s in pairs for column, picture in p.pictures if column >= s],
            paths,
            width,
        )


def _shared_length(a: Tensor, b: Tensor) -> int:
    """How many entries two sequences begin with alike."""
    n = min(len(a), len(b))
    different = a[:n].ne(b[:n]).nonzero()
    return int(different[0]) if len(different) else n
