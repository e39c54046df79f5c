"""What frozen models say of the answers of every stream, as a method asks for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.errors import UserError, short
from viker_lightning.models import MLLM

from .distribution import IdealDistribution, why_not_reduced
from .own_reference import OwnReference
from .reference import Level, Reference, reference_of, statistics_of
from .store import Keep, reference_store

log = logging.getLogger(__name__)


class Asks(Protocol):
    """What a method says it needs of frozen models; see :class:`~viker_lightning.methods.Method`."""

    @property
    def streams(self) -> Mapping[str, Any]:
        """What it needs of each stream, by name, with ``levels`` by name of a reference."""

    @property
    def references(self) -> Mapping[str, Any]:
        """All references and their settings, by name."""

    layers: tuple[int, ...]


class References:
    """Knows what frozen models say of the answers of every stream.

    Names are those of :data:`~viker_lightning.methods.Stream`. What is said is reduced where the output
    embedding allows it, else taken as full distributions, which are computed in every step. A model that is trained in
    full is asked everything by :meth:`prepare`, since it is not the original any more afterwards.

    Args:
        keep: where what was said is kept: ``disk``, ``memory`` or ``off``.
        dtype: of the weights of a gold model.

    Attributes:
        ideal: what is said behind irrelevant images, if that is asked.
        strangers: what is said of forget answers behind each stranger, if that is asked and kept.
    """

    def __init__(self, keep: Keep, dtype: str = "float32") -> None:
        self.keep, self.dtype = keep, dtype
        self.ideal: IdealDistribution | None = None
        self.strangers: IdealDistribution | None = None
        self._full: set[tuple[str, str]] = set()  # asked for every probability, in every step
        self._single: dict[str, OwnReference] = {}  # what is said behind single images, by name and level
        self._saved: dict[str, Any] = {}  # what had been said before the run stopped
        self._gold: MLLM | None = None
        self._asks: Asks
        self._mllm: MLLM

    def prepare(
        self,
        mllm: MLLM,
        asks: Asks,
        irrelevant: Sequence[Picture],
        strangers: Sequence[Picture],
        groups: Callable[[str], list[ImageGroup]],
    ) -> None:
        """Gets ready for the first step; all processes call it together.

        Args:
            mllm: the model.
            asks: the method.
            irrelevant: irrelevant images, if the method asks about them.
            strangers: pictures behind each of which the forget answers are asked, if that is to be known beforehand.
            groups: gives every question of a stream with every image it may be asked about.

        Raises:
            UserError: if a model that is trained in full would have to be asked in every step what it said at first.
        """
        self._mllm, self._asks = mllm, asks
        pairs = [(stream, name, level) for stream, need in asks.streams.items() for name, level in need.levels.items()]
        for stream, name, level in pairs:
            self._check(stream, name, level)
        if self.keep == "off" or asks.layers or ("strangers", "own") not in {pair[:2] for pair in pairs} - self._full:
            strangers = []  # nothing is to be known beforehand
        if "irrelevant" in asks.references:
            self.ideal = IdealDistribution(mllm, irrelevant, self.keep, each=list(irrelevant) == list(strangers))
            for stream in [stream for stream, name, _ in pairs if name == "irrelevant"]:
                self._ask_now(self.ideal, groups(stream))
        if strangers:
            shared = self.ideal is not None and self.ideal.each
            self.strangers = self.ideal if shared else IdealDistribution(mllm, strangers, self.keep, each=True)
            assert self.strangers is not None
            self._ask_now(self.strangers, [group for group in groups("forget") if group.image is not None])
        for stream, name, level in pairs:
            if name != "irrelevant" and (stream, name) not in self._full:
                single = self._behind_single_images(name, level)
                known = (stream, name) == ("strangers", "own") and self.strangers is not None
                if single.store is not None and not known:
                    single.prepare(self._shown(name, groups(stream)))
        for key in self._saved.keys() & self._single.keys():
            self._single[key].load_state_dict(self._saved[key])
        self._saved = {}

    def _check(self, stream: str, name: str, level: Level) -> None:
        """Notes whether full distributions are needed, and makes sure that they can be had."""
        reason = why_not_reduced(self._mllm.head, "reverse" if level == "full" else "forward")
        full = reason is not None and (level != "log_prob" or name == "irrelevant")
        if full:
            self._full.add((stream, name))
            log.info("references are full distributions, recomputed in every step: %s", reason)
        if name != "gold" and not self._mllm.adapted:
            self._check_kept(reason if full else None)

    def of(
        self, stream: str, groups: Sequence[ImageGroup], batch: PackedBatch
    ) -> tuple[dict[str, Reference], dict[str, Tensor]]:
        """What is said of a batch of a stream, token by token.

        Args:
            stream: which one.
            groups: the image groups of the batch.
            batch: the same, packed.

        Returns:
            By name, the references the method asks for, and full ``[T, V]`` distributions where they are needed.

        Raises:
            UserError: if an instruction before the question changes the tokens of the answer.
        """
        references: dict[str, Reference] = {}
        distributions: dict[str, Tensor] = {}
        for name, level in self._asks.streams[stream].levels.items():
            if (stream, name) in self._full:
                references[name], distributions[name] = self._in_full(name, groups, batch)
            elif name == "irrelevant":
                assert self.ideal is not None
                references[name] = self.ideal.reference(batch)
            else:
                references[name] = self._reference(stream, name, level, groups, batch)
            if level == "log_prob":  # what is stored may hold more
                references[name] = replace(references[name], vector=references[name].vector[:, :0])
        return references, distributions

    def state_dict(self) -> dict[str, Any]:
        """What was said behind single images, for a checkpoint: asked in another batch, it would round otherwise."""
        return {key: single.state_dict() for key, single in self._single.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what was said before a run was stopped; in effect from :meth:`prepare` on."""
        self._saved = state

    def _ask_now(self, ideal: IdealDistribution, groups: Sequence[ImageGroup]) -> None:
        if self.keep != "off":
            encode = self._mllm.encoder.encode
            ideal.prepare([encode(vqa, group.image is not None) for group in groups for vqa in group.vqa])

    def _behind_single_images(self, name: str, level: Level) -> OwnReference:
        """What a model says behind single images; one that is trained in full is asked all of it beforehand."""
        reduced = level != "log_prob"
        key = f"{name}/{'kl' if reduced else level}"
        if key not in self._single:
            model, store = self._model(name), None
            if name != "gold" and not self._mllm.adapted:
                store = reference_store(self._mllm, self.keep)
            keep, layers = store is not None or self.keep != "off", self._asks.layers
            self._single[key] = OwnReference(model, keep, reduced, store, layers, self._mllm)
        return self._single[key]

    def _model(self, name: str) -> MLLM:
        if name != "gold":
            return self._mllm
        if self._gold is None:
            self._gold = self._mllm.beside(self._asks.references["gold"].folder, self.dtype, "model.method.gold")
        return self._gold

    def _reference(
        self, stream: str, name: str, level: Level, groups: Sequence[ImageGroup], batch: PackedBatch
    ) -> Reference:
        if (stream, name) == ("strangers", "own") and self.strangers is not None:
            pictures = [picture for r in batch.row_of if (picture := batch.pictures[r]) is not None]
            if (found := self.strangers.behind(pictures, batch.encoded)) is not None:
                return found.to(batch.labels.device)
        return self._behind_single_images(name, level).reference(self._as_shown(name, groups, batch))

    def _in_full(self, name: str, groups: Sequence[ImageGroup], batch: PackedBatch) -> tuple[Reference, Tensor]:
        if name == "irrelevant":
            assert self.ideal is not None
            p = self.ideal.distribution(batch.encoded)
            return statistics_of(p, batch.labels), p
        model, layers = self._model(name), self._asks.layers
        with model.frozen():
            tokens = model.answer_tokens(self._as_shown(name, groups, batch), layers)
            p = tokens.logits.softmax(-1)
            hidden = reference_of(tokens, reduced=False, layers=layers).layers
        return replace(statistics_of(p, batch.labels), layers=hidden), p

    def _shown(self, name: str, groups: list[ImageGroup]) -> list[ImageGroup]:
        """Image groups as the reference sees them."""
        return self._asks.references["noised"].groups(groups) if name == "noised" else groups

    def _as_shown(self, name: str, groups: Sequence[ImageGroup], batch: PackedBatch) -> PackedBatch:
        if name != "noised":
            return batch
        noised = self._asks.references["noised"]
        shown = self._mllm.pack(noised.groups(groups))
        if not torch.equal(shown.labels, batch.labels):
            raise UserError(
                f"model.method.instruction: {short(noised.instruction)} changes the tokens that are to be "
                "predicted; end it with a full stop, or train on answers alone (data.protocol=corrected)"
            )
        return shown

    def _check_kept(self, why_full: str | None) -> None:
        """Makes sure that a model trained in full need not be asked again what it said at first."""
        way = "which LoRA makes possible; set model.lora, or a method or setting without that need"
        if self.keep == "off":
            raise UserError(f"model.engine.references=off asks the original model in every step, {way}")
        if why_full:
            raise UserError(f"model.lora=null: {why_full}, so the original model is asked in every step, {way}")
