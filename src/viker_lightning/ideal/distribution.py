"""The ideal distribution of every forget answer."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from filelock import FileLock
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, AnswerTokens
from viker_lightning.terminal.progress import Bar

from .prefix import ImagePrefixes
from .reference import Reference, mean_distribution, output_weight, reduce_distribution, reference_of
from .store import Keep, outside_autocast, reference_key, reference_store

QUESTIONS_PER_PART = 64


def why_not_reduced(head: nn.Module, direction: str = "forward") -> str | None:
    """Why a KL cannot be taken from a reduced reference; ``None`` if it can.

    The reduction needs an output embedding that stays what it was, without bias, and KL(ideal || student).
    """
    if direction != "forward":
        return f"the {direction} KL needs every probability of the ideal distribution"
    if isinstance(head, BaseTunerLayer):
        return "the output embedding has an adapter"
    if any(p.requires_grad for p in head.parameters()):
        return "the output embedding is trained"
    if getattr(head, "bias", None) is not None:
        return "the output embedding has a bias"
    return None


def in_parts(questions: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Questions in parts, after each of which what is known is kept."""
    for first in range(0, len(questions), QUESTIONS_PER_PART):
        yield questions[first : first + QUESTIONS_PER_PART]


class IdealDistribution:
    """Knows, for a question and its answer, what the frozen model would say of each token behind irrelevant images.

    Question and answer prefix are the sample's own (teacher forcing); only the image is another.

    Args:
        mllm: the model.
        pictures: the k irrelevant images, in order.
        keep: ``disk`` (the cache folder, shared by runs), ``memory`` (this run), or ``off``: computed in every step.
        each: whether what is said behind every single image is stored, too (:meth:`behind`); it is computed anyway.
    """

    def __init__(self, mllm: MLLM, pictures: Sequence[Picture], keep: Keep = "memory", each: bool = False) -> None:
        self.mllm, self.pictures, self.keep, self.each = mllm, list(pictures), keep, each
        self.store = reference_store(mllm, keep)
        self._prefixes: ImagePrefixes | None = None
        if not pictures:
            raise ValueError("the ideal distribution needs at least one irrelevant image, found none")

    @property
    def prefixes(self) -> ImagePrefixes:
        """Key/values of the images; they are read when something is first asked that is not stored."""
        if self._prefixes is None:
            with outside_autocast(self.mllm):
                self._prefixes = ImagePrefixes(self.mllm, self.pictures)
        return self._prefixes

    def release(self) -> None:
        """Drops the images' key/values; they are read again if something is asked that is not stored."""
        self._prefixes = None

    def _key(self, question: Encoded) -> str:
        return reference_key(self.pictures, question)

    def _missing(self, questions: Sequence[Encoded]) -> list[Encoded]:
        single = self.pictures if self.each else []
        keys = {q: [self._key(q), *(reference_key([picture], q) for picture in single)] for q in questions}
        return [q for q, wanted in keys.items() if not all(key in self.store for key in wanted)]

    def prepare(self, questions: Sequence[Encoded]) -> None:
        """Computes and stores what is not known yet, with a progress bar; processes of one run share the work."""
        parallel = self.keep == "disk" and torch.distributed.is_initialized()
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if parallel else (0, 1)
        missing = self._missing(questions)
        with self.mllm.together():
            if missing[rank::world]:
                with self._locked(f"build-{rank}-of-{world}"):
                    self.store.refresh()
                    known = set(missing) - set(self._missing(missing))
                    self._compute([q for q in missing[rank::world] if q not in known])
        if parallel:
            torch.distributed.barrier()
            self.store.refresh()
            with self.mllm.together():
                self._compute(self._missing(questions))  # nothing, unless processes do not see the same folder

    def _locked(self, name: str) -> Any:
        """Lets one run at a time compute, so that another that waits finds the work done."""
        if self.store.folder is None or self.mllm.lockstep is not None:  # who waits would keep other processes waiting
            return nullcontext()
        self.store.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.store.folder / f"{name}.lock")

    def _compute(self, questions: list[Encoded]) -> None:
        with Bar("ideal distribution", len(questions), "questions", shown=len(questions) >= 100) as bar:
            for part in in_parts(questions):
                with outside_autocast(self.mllm):
                    self.store.add(self._fresh(part).items())
                bar.advance(len(part))

    def _fresh(self, questions: Sequence[Encoded]) -> dict[str, Reference]:
        """References of questions by key: of the mean, and of each image if these are wanted."""
        weight = output_weight(self.mllm.head)
        found: dict[str, Reference] = {}
        for batch, hidden in self.prefixes.hidden(questions):
            sizes = [len(q.answer) for q in batch.encoded]
            with self.mllm.frozen():
                p = mean_distribution(self._logits(batch, hidden, sizes, found))
                means = reduce_distribution(p, batch.labels, weight).split(sizes)
                found |= zip(map(self._key, batch.encoded), means, strict=True)
        return found

    def _logits(
        self, batch: PackedBatch, hidden: Tensor, sizes: list[int], found: dict[str, Reference]
    ) -> Iterator[Tensor]:
        """Logits behind one image after the other; notes what is said behind each if that is wanted."""
        for picture, states in zip(self.pictures, hidden, strict=True):
            tokens = AnswerTokens.from_batch(batch, states, self.mllm.head)
            if self.each:
                keys = [reference_key([picture], q) for q in batch.encoded]
                found |= zip(keys, reference_of(tokens).split(sizes), strict=True)
            yield tokens.logits

    def reference(self, batch: PackedBatch) -> Reference:
        """The reduced reference for a batch, token by token, computed first where it is not known.

        Raises:
            UserError: if the output embedding does not allow a reduced reference.
        """
        if reason := why_not_reduced(self.mllm.head):
            raise UserError(f"the ideal distribution cannot be reduced: {reason}; use full distributions")
        return self.look_up(batch.encoded).to(batch.labels.device)

    def look_up(self, questions: Sequence[Encoded]) -> Reference:
        """The references of questions, token by token, computed first where they are not known."""
        if self.keep == "off":
            found = self._fresh(questions)
            return Reference.cat([found[self._key(q)] for q in questions])
        missing = self._missing(questions)
        if missing:
            self._compute(missing)
        return Reference.cat([self.store.get(self._key(q)) for q in questions])

    def behind(self, pictures: Sequence[Picture], questions: Sequence[Encoded]) -> Reference | None:
        """What is said of questions behind one of the images each; ``None`` unless all of that is stored."""
        keys = [reference_key([picture], q) for picture, q in zip(pictures, questions, strict=True)]
        if not all(key in self.store for key in keys):
            return None
        return Reference.cat([self.store.get(key) for key in keys])

    def distribution(self, questions: Sequence[Encoded]) -> Tensor:
        """Full distributions ``[T, V]``, recomputed: where they cannot be reduced, and for showing top tokens."""
        return torch.cat([p for _, p in self.prefixes.distributions(questions)])
