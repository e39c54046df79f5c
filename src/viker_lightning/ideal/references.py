"""What the frozen model says of the answers of every stream, as a method asks for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from viker_lightning.data.encoding import Encoded
from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM

from .distribution import IdealDistribution, why_not_reduced
from .own_reference import OwnReference
from .reference import Reference, statistics_of
from .store import Keep, reference_store

log = logging.getLogger(__name__)


class Needs(Protocol):
    """What a method says it needs of the frozen model; see :class:`~viker_lightning.methods.Method`."""

    reference: str
    needs_vector: bool
    needs_distribution: bool
    retain_reference: bool
    gold: str | None


class References:
    """Knows what the frozen model says of the answers of every stream.

    Of forget answers behind irrelevant images (:attr:`ideal`) or behind their own, of retain answers behind their own
    (:attr:`own`, by stream): reduced where the output embedding allows it, else as full distributions, which are
    computed in every step. A model that is trained in full is asked everything by :meth:`prepare`, since it is not the
    original any more afterwards.

    Args:
        keep: where what was said is kept: ``disk``, ``memory`` or ``off``.
        dtype: of the weights of a gold model.
    """

    def __init__(self, keep: Keep, dtype: str = "float32") -> None:
        self.keep, self.dtype = keep, dtype
        self.ideal: IdealDistribution | None = None
        self.own: dict[str, OwnReference] = {}
        self.why_full: str | None = None  # why forget references must be full distributions, if they must
        self._saved: dict[str, Any] = {}  # what had been said before the run stopped
        self._mllm: MLLM

    def prepare(
        self,
        mllm: MLLM,
        needs: Needs,
        pictures: Sequence[Picture],
        questions: Sequence[Encoded],
        groups: Callable[[str], list[ImageGroup]],
    ) -> None:
        """Gets ready for the first step; all processes call it together.

        Args:
            mllm: the model.
            needs: the method.
            pictures: irrelevant images, if the method asks for them.
            questions: all forget questions, to be asked behind these images now.
            groups: gives every question of a stream with every image it may be asked about.

        Raises:
            UserError: if a model that is trained in full would have to be asked in every step what it said at first.
        """
        self._mllm = mllm
        self.why_full = _why_full(mllm, needs)
        if not mllm.adapted and (needs.reference != "none" or needs.retain_reference):
            self._check_kept()
        if needs.reference == "irrelevant":
            self.ideal = IdealDistribution(mllm, pictures, self.keep)
            if self.keep != "off":
                self.ideal.prepare(questions)
        elif needs.reference == "own" and needs.gold is not None:
            gold = mllm.beside(needs.gold, self.dtype, "model.method.gold")
            self.own["forget"] = OwnReference(gold, self.keep != "off", needs.needs_vector)
        elif needs.reference == "own":
            self.own["forget"] = self._own("forget", groups, needs.needs_vector)
        if needs.retain_reference:
            self.own["retain"] = self._own("retain", groups)
        for stream, state in self._saved.items():
            if stream in self.own:
                self.own[stream].load_state_dict(state)
        self._saved = {}

    def of(self, stream: str, batch: PackedBatch) -> tuple[Reference | None, Tensor | None]:
        """What the frozen model says of a batch of a stream, token by token.

        Returns:
            The reference, and the full ``[T, V]`` distribution where the reference cannot be reduced; ``None`` for
            what the method does not ask for.
        """
        if stream == "forget" and self.why_full:
            distribution = self._distribution(batch)
            return statistics_of(distribution, batch.labels), distribution
        if stream == "forget" and self.ideal is not None:
            return self.ideal.reference(batch), None
        return (self.own[stream].reference(batch), None) if stream in self.own else (None, None)

    def state_dict(self) -> dict[str, Any]:
        """What was said behind own images, for a checkpoint: asked in another batch, it would round otherwise."""
        return {stream: own.state_dict() for stream, own in self.own.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what was said before a run was stopped; in effect from :meth:`prepare` on."""
        self._saved = state

    def _own(self, stream: str, groups: Callable[[str], list[ImageGroup]], reduced: bool = True) -> OwnReference:
        """What the frozen model says behind a stream's own images; all of it now if it will be gone later."""
        if self._mllm.adapted:
            return OwnReference(self._mllm, self.keep != "off", reduced)
        own = OwnReference(self._mllm, True, reduced, reference_store(self._mllm, self.keep))
        own.prepare(groups(stream))
        return own

    def _distribution(self, batch: PackedBatch) -> Tensor:
        if self.ideal is not None:
            return self.ideal.distribution(batch.encoded)
        with self._mllm.frozen():
            return self._mllm.answer_tokens(batch).logits.softmax(-1)

    def _check_kept(self) -> None:
        """Makes sure that a model trained in full need not be asked again what it said at first."""
        way = "which LoRA makes possible; set model.lora, or a method or setting without that need"
        if self.keep == "off":
            raise UserError(f"model.engine.references=off asks the original model in every step, {way}")
        if self.why_full:
            raise UserError(f"model.lora=null: {self.why_full}, so the original model is asked in every step, {way}")


def _why_full(mllm: MLLM, needs: Needs) -> str | None:
    """Why the forget reference must be taken as full distributions, in every step; ``None`` if it need not."""
    if needs.reference == "none" or not needs.needs_vector:
        return None
    reason = why_not_reduced(mllm.head, "reverse" if needs.needs_distribution else "forward")
    if reason:
        log.info("references are full distributions, recomputed in every step: %s", reason)
    return reason
