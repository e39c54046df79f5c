"""What frozen models say of the answers of every stream, as a method asks for it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError, short
from viker_lightning.models import MLLM

from .distribution import IdealDistribution
from .doubles import in_common, with_rows
from .own_reference import OwnReference
from .plan import Behind, Need, Plan
from .reference import NAMES, Reference, mean_distribution, output_weight, reference_of, statistics_of
from .store import Keep, reference_store

log = logging.getLogger(__name__)


class References:
    """Knows what frozen models say of the answers of every stream.

    Names are those of :class:`~viker_lightning.methods.base.Stream`. What is said is reduced where the output
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
        self._single: dict[str, OwnReference] = {}  # what is said behind single images, by name and level
        self._saved: dict[str, Any] = {}  # what had been said before the run stopped
        self._gold: MLLM | None = None
        self._plan: Plan
        self._mllm: MLLM

    def prepare(self, mllm: MLLM, plan: Plan) -> None:
        """Gets ready for the first step; all processes call it together.

        Args:
            mllm: the model.
            plan: all that it is asked.

        Raises:
            UserError: if a model that is trained in full would have to be asked in every step what it said at first.
        """
        self._mllm, self._plan = mllm, plan
        for need in plan.needs:
            self._check(need)
        self.ideal = self._ask_behind(plan.irrelevant)
        self.strangers = self.ideal if plan.strangers is plan.irrelevant else self._ask_behind(plan.strangers)
        for need in plan.needs:
            if need.single:
                single = self._behind_single_images(need)
                if single.store is not None and not plan.knows(need):
                    groups = plan.groups(need.stream)
                    single.prepare(groups, partial(self._views, need.name))
                    if need.name == "double" and (named := [group for group in groups if group.image is None]):
                        self._behind_single_images(replace(need, name="own")).prepare(named)
        for key in self._saved.keys() & self._single.keys():
            self._single[key].load_state_dict(self._saved[key])
        self._saved = {}

    def _check(self, need: Need) -> None:
        """Makes sure that a model trained in full need not be asked again what it said at first."""
        if need.why_full:
            log.info("references are full distributions, recomputed in every step: %s", need.why_full)
        if need.name == "gold" or self._mllm.adapted:
            return
        way = "which LoRA makes possible; set model.lora, or a method or setting without that need"
        if self.keep == "off":
            raise UserError(f"model.engine.references=off asks the original model in every step, {way}")
        if need.why_full:
            raise UserError(f"model.lora=null: {need.why_full}, so the original model is asked in every step, {way}")

    def _ask_behind(self, behind: Behind | None) -> IdealDistribution | None:
        """Asks what is to be known before the first step, unless nothing is kept."""
        if behind is None:
            return None
        ideal = IdealDistribution(self._mllm, behind.pictures, self.keep, behind.each)
        for questions in behind.questions(self._mllm.encoder) if self.keep != "off" else ():
            ideal.prepare(questions)
        return ideal

    def look_up(
        self, stream: str, groups: Sequence[ImageGroup], batch: PackedBatch | None
    ) -> tuple[dict[str, Reference], dict[str, Tensor]]:
        """What is said of a batch of a stream, token by token.

        Args:
            stream: which one.
            groups: the image groups of the batch.
            batch: the same, packed; ``None`` if there are none.

        Returns:
            By name, the references the method asks for, and full ``[T, V]`` distributions where they are needed.

        Raises:
            UserError: if an instruction before the question changes the tokens of the answer.
        """
        references: dict[str, Reference] = {}
        distributions: dict[str, Tensor] = {}
        needs = [need for need in self._plan.needs if need.stream == stream]
        if batch is None:
            weight = output_weight(self._mllm.head)
            nothing = Reference.none(weight, self._plan.asks.layers)
            none = {need.name: nothing.log_prob.new_zeros(0, len(weight)) for need in needs if need.level == "full"}
            return {need.name: nothing for need in needs}, none
        for need in needs:
            name = need.name
            if need.why_full:
                references[name], distributions[name] = self._in_full(name, groups, batch)
            elif name == "irrelevant":
                assert self.ideal is not None
                references[name] = self.ideal.reference(batch)
            else:
                references[name] = self._reference(need, groups, batch)
            if need.level == "log_prob":  # what is stored may hold more
                references[name] = replace(references[name], vector=references[name].vector[:, :0])
        return references, distributions

    def state_dict(self) -> dict[str, Any]:
        """What was said behind single images, for a checkpoint: asked in another batch, it would round otherwise."""
        return {key: single.state_dict() for key, single in self._single.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what was said before a run was stopped; in effect from :meth:`prepare` on."""
        self._saved = state

    def _behind_single_images(self, need: Need) -> OwnReference:
        """What a model says behind single images; one that is trained in full is asked all of it beforehand."""
        reduced = need.level != "log_prob"
        key = f"{need.name}/{'kl' if reduced else need.level}"
        if key not in self._single:
            model, store = self._model(need.name), None
            if need.name != "gold" and not self._mllm.adapted:
                store = reference_store(self._mllm, self.keep)
            keep, layers = store is not None or self.keep != "off", self._plan.asks.layers
            self._single[key] = OwnReference(model, keep, reduced, store, layers, self._mllm)
        return self._single[key]

    def _model(self, name: str) -> MLLM:
        if name != "gold":
            return self._mllm
        if self._gold is None:
            folder = self._plan.asks.references["gold"].folder
            self._gold = self._mllm.beside(folder, self.dtype, "model.method.gold")
        return self._gold

    def _reference(self, need: Need, groups: Sequence[ImageGroup], batch: PackedBatch) -> Reference:
        if self._plan.knows(need):
            assert self.strangers is not None
            pictures = [picture for r in batch.row_of if (picture := batch.pictures[r]) is not None]
            if (found := self.strangers.behind(pictures, batch.encoded)) is not None:
                return found.to(batch.labels.device)
        views = self._as_shown(need.name, groups, batch)
        found = self._behind_single_images(need).reference(*views)
        if need.name != "double" or not (named := [group for group in groups if group.image is None]):
            return found
        own = self._behind_single_images(replace(need, name="own")).reference(self._mllm.pack(named))
        columns = zip(*(_of_same_tokens(batch, views[0], vars(own)[n], vars(found)[n]) for n in NAMES), strict=True)
        return Reference.cat([Reference(*part) for part in columns])

    def _in_full(self, name: str, groups: Sequence[ImageGroup], batch: PackedBatch) -> tuple[Reference, Tensor]:
        if name == "irrelevant":
            assert self.ideal is not None
            p = self.ideal.distribution(batch.encoded)
            return statistics_of(p, batch.labels), p
        model, layers = self._model(name), self._plan.asks.layers
        with model.frozen():
            views = self._as_shown(name, groups, batch)
            tokens = model.answer_tokens(views[0], layers)
            others = (model.answer_tokens(view).logits for view in views[1:])
            p = mean_distribution([tokens.logits, *others])
            hidden = reference_of(tokens, reduced=False, layers=layers).layers
            if name == "double" and (named := [group for group in groups if group.image is None]):
                own = model.answer_tokens(model.pack(named), layers)
                states = reference_of(own, reduced=False, layers=layers).layers
                p = torch.cat(_of_same_tokens(batch, views[0], own.logits.float().softmax(-1), p))
                hidden = torch.cat(_of_same_tokens(batch, views[0], states, hidden))
        return replace(statistics_of(p, batch.labels), layers=hidden), p

    def _views(self, name: str, groups: Sequence[ImageGroup]) -> Sequence[Sequence[ImageGroup]]:
        """Image groups as the reference sees them: once, or once for each of a person's doubles."""
        if name == "double":
            assert self._plan.doubles is not None
            return self._plan.doubles.views(groups)
        return [self._plan.asks.references["noised"].groups(groups) if name == "noised" else groups]

    def _as_shown(self, name: str, groups: Sequence[ImageGroup], batch: PackedBatch) -> list[PackedBatch]:
        if name not in ("noised", "double"):
            return [batch]
        views = [self._mllm.pack(shown) for shown in self._views(name, groups)]
        if name == "noised" and not torch.equal(views[0].labels, batch.labels):
            instruction = self._plan.asks.references["noised"].instruction
            raise UserError(
                f"model.method.instruction: {short(instruction)} changes the tokens that are to be "
                "predicted; end it with a full stop, or train on answers alone (data.protocol=corrected)"
            )
        return views


def _of_same_tokens(batch: PackedBatch, view: PackedBatch, own: Tensor, found: Tensor) -> list[Tensor]:
    """What is said of answers where another name stands in some, for every token of the answers as they are.

    For a token that only the name of the person has stands what is said of the answer as it is, so that the name that
    was asked about is repeated.

    Args:
        batch: the answers as they are.
        view: the same questions, in the same order; those without photo may have another name.
        own: ``[T, ...]`` of the questions without photo as they are, in their order.
        found: ``[T', ...]`` of all questions of the view.

    Returns:
        Of each question ``[t, ...]``, t being its tokens as they are.
    """
    named = [batch.pictures[row] is None for row in batch.row_of]
    sizes = [len(question.answer) for question, one in zip(batch.encoded, named, strict=True) if one]
    mine, parts = iter(own.split(sizes)), []
    theirs = found.split([len(question.answer) for question in view.encoded])
    for one, asked, instead, part in zip(named, batch.encoded, view.encoded, theirs, strict=True):
        parts.append(with_rows(next(mine), part, in_common(asked.answer, instead.answer)) if one else part)
    return parts
