"""What the frozen model says of answers behind the images they belong to, or behind others shown in their place."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, split_to_budget
from viker_lightning.models.lru import LRU
from viker_lightning.terminal.progress import Bar

from .distribution import why_not_reduced
from .reference import (
    NAMES,
    Reference,
    mean_distribution,
    output_weight,
    reduce_distribution,
    reference_of,
    statistics_of,
)
from .store import ReferenceStore, outside_autocast, reference_key

Views = Callable[[Sequence[ImageGroup]], Sequence[Sequence[ImageGroup]]]
"""What is shown in the place of image groups: once, or several times, over which what is said is averaged."""


class OwnReference:
    """Knows what the frozen model says of answers behind the images they belong to, or behind others shown instead.

    Args:
        mllm: the model.
        keep: whether answers once computed are remembered (in memory, up to :data:`MEMORY_LIMIT`).
        reduced: whether vectors are wanted besides log-probabilities.
        store: where all of them are kept, without limit: for a model that is trained in full, whose original weights
            can only be asked beforehand (:meth:`prepare`).
        layers: decoder layers whose hidden states are wanted too, from 0, or from the end if negative.
        student: whose output embedding a KL is taken with; ``None`` is the model that is asked.
    """

    MEMORY_LIMIT = 4 * 2**30
    CHECKPOINT_LIMIT = 2**28

    def __init__(
        self,
        mllm: MLLM,
        keep: bool = True,
        reduced: bool = True,
        store: ReferenceStore | None = None,
        layers: Sequence[int] = (),
        student: MLLM | None = None,
    ) -> None:
        self.mllm, self.keep, self.reduced, self.store = mllm, keep, reduced, store
        self.layers, self.student = tuple(layers), student or mllm
        self._kept: LRU[Reference] = LRU(self.MEMORY_LIMIT)

    def prepare(self, groups: Sequence[ImageGroup], views: Views = lambda groups: [groups]) -> None:
        """Asks about all answers of image groups, with a progress bar; processes that share a folder share the work.

        Args:
            groups: every question with every image it may be asked about.
            views: what is shown in their place.
        """
        assert self.store is not None
        parallel = self.store.folder is not None and torch.distributed.is_initialized()
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if parallel else (0, 1)
        parts = split_to_budget(self.mllm, groups)[rank::world]
        questions = sum(len(group.vqa) for part in parts for group in part)
        bar = Bar("original model", questions, "questions", shown=questions >= 100)
        with bar, self.mllm.together():
            for part in parts:
                self.reference(*(self.mllm.pack(shown) for shown in views(part)))
                bar.advance(sum(len(group.vqa) for group in part))
        if parallel:
            torch.distributed.barrier()
            self.store.refresh()

    def reference(self, *views: PackedBatch) -> Reference:
        """The reference for a batch, token by token.

        Args:
            views: the batch as it is shown; several have the same answers behind other images, over which what is said
                is averaged.

        Raises:
            UserError: if a reduced reference is wanted and the output embedding does not allow one, or the frozen
                model is gone.
        """
        if self.reduced and (reason := why_not_reduced(self.student.head)):
            raise UserError(f"the frozen model's distribution cannot be reduced: {reason}; choose another method")
        batch = views[0]
        shown = [[p for view in views if (p := view.pictures[r])] for r in batch.row_of]
        name = f"own/{self.reduced}/"  # a log-probability alone is another thing than one with its distribution
        name += f"{','.join(map(str, self.layers))}/" if self.layers else ""
        keys = [name + reference_key(pictures, q) for pictures, q in zip(shown, batch.encoded, strict=True)]
        known = [found for key in keys if (found := self._known(key)) is not None]
        if len(known) == len(keys):
            return Reference.cat(known).to(batch.labels.device)
        with self.mllm.frozen(), nullcontext() if self.store is None else outside_autocast(self.mllm):
            weight, asked = output_weight(self.student.head), (self.mllm.answer_tokens(v, self.layers) for v in views)
            if len(views) == 1:
                found = reference_of(next(asked), self.reduced, self.layers, weight)
            else:
                mean, labels = mean_distribution(tokens.logits for tokens in asked), batch.labels
                found = reduce_distribution(mean, labels, weight) if self.reduced else statistics_of(mean, labels)
        if self.keep:
            self._remember(keys, found.to("cpu").split([len(q.answer) for q in batch.encoded]))
        return found

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint; nothing if it is more than :data:`CHECKPOINT_LIMIT` bytes.

        What is not taken up is asked again, in other batches, and rounds otherwise.
        """
        kept = self._kept.items()
        if not kept or self._kept.nbytes > self.CHECKPOINT_LIMIT:
            return {}
        whole = Reference.cat([reference for _, reference in kept])
        return vars(whole) | {"keys": [key for key, _ in kept], "tokens": [len(r.log_prob) for _, r in kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what was remembered."""
        if state:
            whole = Reference(**{name: state[name] for name in NAMES if name in state})
            for key, part in zip(state["keys"], whole.split(state["tokens"]), strict=True):
                self._kept.put(key, part.clone())

    def _known(self, key: str) -> Reference | None:
        if self.store is None:
            return self._kept.get(key)
        return self.store.get(key) if key in self.store else None

    def _remember(self, keys: list[str], parts: list[Reference]) -> None:
        if self.store is not None:
            self.store.add(zip(keys, parts, strict=True))
            return
        for key, part in zip(keys, parts, strict=True):
            self._kept.put(key, part.clone())
