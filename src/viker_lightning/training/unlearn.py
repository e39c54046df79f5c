"""Stage 2: forget. A vanilla model, LoRA or full fine-tuning, a forget and a retain step, and a frozen reference."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from viker_lightning.data.embedded.grammar import full_names
from viker_lightning.data.packing import PackedBatch
from viker_lightning.data.person_names import names_of, read_names, renamed, strange_names
from viker_lightning.data.pictures.irrelevant import check_images
from viker_lightning.data.records import ImageGroup, Labels, Picture, person_name
from viker_lightning.errors import UserError, check_least
from viker_lightning.ideal import (
    Doubles,
    IdealDistribution,
    OwnAnswers,
    Reference,
    References,
    choose_pictures,
    clip_filter,
    key_tokens,
    pictures_of,
)
from viker_lightning.ideal.plan import Plan, plan_of
from viker_lightning.methods import Around, Batch, Method, PromptOnly
from viker_lightning.methods.base import check_declared, check_needs, check_terms
from viker_lightning.models import MLLM, AnswerTokens, Lora, Quantize, Weights, decoder_layers
from viker_lightning.models.families import Family
from viker_lightning.models.layers import layer_number
from viker_lightning.models.rounding import warn_of_rounding
from viker_lightning.storage.files import check_folder
from viker_lightning.storage.runs import names

from .base import Stage
from .engine import Engine
from .finished import unlearned_model
from .preparation import Prepare
from .step import Groups, Terms, Totals, answers_of
from .streams import ForgetVariants
from .vanilla import check_goes_on, check_vanilla, vanilla_model

log = logging.getLogger(__name__)

TRUE_HALF = {"bf16-true": "bfloat16", "16-true": "float16"}
"""What ``trainer.precision`` makes of all weights."""


class Unlearn(Stage):
    """Unlearns the forget set of the data with a method.

    Args:
        method: the objective.
        vanilla: the model that knows everybody: a model folder, a run folder, a hub id, or the YAML of a fine-tuning
            run, which is then made on the same data first, once. A run folder of an unlearning run, or its adapter,
            goes on from there: what it says is then what frozen models say (``data.forgotten_by`` says whom it has
            forgotten).
        lora: adapter setting; only the language model is adapted. ``None`` trains the language model in full, but for
            its output embedding: no second model is needed, since what the original one says is asked before the first
            step and kept. A reverse KL needs it in every step, so it needs LoRA.
        adapter: folder of a saved adapter to start from (or to evaluate).
        lr: learning rate.
        weight_decay: weight decay.
        warmup_steps: linear warm-up.
        schedule: learning rate after the warm-up.
        dtype: of the weights.
        seed: of the choice of irrelevant images and refusals. With a number, runs that differ in ``seed_everything``
            share irrelevant images, and so the stored ideal distribution: what they differ in does not tell how much
            the choice matters. ``null`` follows ``seed_everything``.
        clip: open_clip model that keeps irrelevant images away from the forget images: a folder, ``hf-hub:owner/name``
            or ``name/weights``; see :class:`~viker_lightning.data.pictures.clip.ClipEmbedder`. None by default.
        clip_threshold: the largest similarity to a forget image that an irrelevant image may have, -1 to 1; read it off
            ``similarity.json`` in the run folder, since models differ.
        quantize: how the language model is kept below the adapter: ``nf4`` (4 bits, as QLoRA has it), ``int8`` or
            ``fp4``; needs bitsandbytes (extra ``quant``) and LoRA.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: whether code that comes with hub weights may run.
        family: the model's family, by class path, where this package has none for it; docs/model.md shows one.
        save_merged: whether the run also writes ``merged/``, full weights in float32 with the adapter added to
            them; later, ``python -m viker_lightning export`` does.
        engine: budgets, and what is kept where.
        optimizer: what steps, as ``class_path`` and ``init_args`` of any torch optimizer without ``lr`` and
            ``weight_decay``, which are those above; ``None`` is AdamW.
    """

    stages = ("unlearn",)

    def __init__(  # noqa: PLR0913 - options of a run
        self,
        method: Method,
        vanilla: str,
        lora: Lora | None = Lora(),  # noqa: B008 - jsonargparse reads the default
        adapter: str | None = None,
        lr: float = 5e-6,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        seed: int | None = 0,
        clip: str | None = None,
        clip_threshold: float | None = None,
        quantize: Quantize | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        family: Family | None = None,
        save_merged: bool = False,
        engine: Engine = Engine(),  # noqa: B008 - jsonargparse reads the default
        optimizer: OptimizerCallable | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, schedule, engine, optimizer)
        check_least("model", 0, seed=seed)
        check_needs(method)
        check_vanilla("model.vanilla", vanilla)
        for name, folder in (("adapter", adapter), ("clip", clip)):
            check_folder(f"model.{name}", folder)
        self.method, self.vanilla, self.lora, self.adapter = method, vanilla, lora, adapter
        self.weights = Weights(dtype, quantize, revision, trust_remote_code, family)
        self.seed, self.save_merged = seed, save_merged
        if (clip is None) != (clip_threshold is None):
            raise UserError(f"clip={clip} and clip_threshold={clip_threshold} belong together; set both or neither")
        self.clip, self.clip_threshold = clip, clip_threshold
        self.clip_weights: dict[str, str | None] | None = None  # which ones looked
        for name, value in (("adapter", adapter), ("quantize", quantize), ("save_merged", save_merged or None)):
            if lora is None and value is not None:
                raise UserError(f"{name}={value} goes with LoRA, but lora is null; leave one of them out")
        self.drawn_with = seed or 0  # what irrelevant images and refusals are chosen with
        self.pictures: list[Picture] = []
        self.strangers: list[Picture] = []
        self.drawn_doubles: list[Picture] = []
        self.names: tuple[dict[str, str], list[str]] = {}, []  # what people are called; names for their doubles
        self.variants: ForgetVariants
        self._method_state: dict[str, Any] | None = None  # of the run that is resumed
        self._own_answers_state: dict[str, Any] | None = None
        self._prepared = False
        self.references = References(engine.references, dtype)

    @property
    def ideal(self) -> IdealDistribution | None:
        """The ideal distribution of the forget answers, where the method asks for it."""
        return self.references.ideal

    @override
    def setup(self, stage: str) -> None:
        """Makes sure that the method gets the retain questions and irrelevant images it uses.

        Raises:
            UserError: if nobody is retained, images are too few, or the protocol has no such run.
        """
        super().setup(stage)
        data, method = self.data, type(self.method).__name__
        drawn_with = torch.initial_seed() if self.seed is None else self.seed
        self.drawn_with = int(self.trainer.strategy.broadcast(drawn_with))  # processes may be seeded apart
        if stage != "fit":
            return
        for images, count in self.method.pictures_needed.values():
            check_images(images, count, self._own_pictures(images))
        if data.stage != "unlearn":
            return
        if data.forgotten_by is not None:
            check_goes_on(data.forgotten_by, self.vanilla, self.adapter)
        if "retain" in self.method.streams and "retain" not in data.streams:
            raise UserError(
                f"model.method: {method} uses retain questions, but {data.root} retains nobody; add people to retain, "
                "set retain_weight=0 where the method has it, or choose a method that only forgets"
            )
        if "irrelevant" in self.method.references and self.labels == Labels.TEXT:
            raise UserError(
                f"data.protocol: published trains on all text, but {method} asks what is said of answers behind "
                "irrelevant images; set its answers_only to True, or data.protocol to corrected"
            )
        on_photos = "strangers" in self.method.pictures_needed and "double" not in self.method.references
        if on_photos and not any(person.images for person in data.streams["forget"]):
            raise UserError(
                f"model.method: {method} asks about strangers what is asked about photos of the forget set, but "
                f"{data.root} has none there; set doubles=1 where the method has it, which have names, or choose a "
                "method without strangers"
            )

    @override
    def prepare_steps(self) -> None:
        """Takes the method as the benchmark's authors have it, and never more labels than it is defined on.

        Raises:
            UserError: if their script has no such method, or training overwrites the model that it asks.
        """
        if self.authors is not None:
            if isinstance(self.method, PromptOnly):
                raise UserError("data.protocol: published has no script of PromptOnly; set it to corrected")
            if isinstance(self.method, Around):
                raise UserError(
                    f"data.protocol: published has no script of {type(self.method).__name__}, found around "
                    f"{type(self.method.method).__name__}; set it to corrected"
                )
            self.method = self.authors.objective(self.method)
            if self.lora is None and self.authors.redraws and self.method.references.keys() - {"gold"}:
                raise UserError(
                    "model.lora=null: data.protocol=published words questions anew in every step, and "
                    f"{type(self.method).__name__} asks the original model about each, which training overwrites; set "
                    "model.lora, or data.protocol to corrected"
                )
        if self.method.answers_only and self.labels == Labels.TEXT:
            self.labels = Labels.UNENDED
        self.whole_steps, self.in_passes = self.method.whole_steps, self.method.in_passes
        super().prepare_steps()

    @override
    def load_mllm(self) -> MLLM:
        """Loads the vanilla model, making it first if need be, and sets what is trained."""
        begun = unlearned_model(self.vanilla, self.weights)
        self.base_weights = str(vanilla_model(begun, self.data))
        mllm = MLLM.load(self.base_weights, self.weights)
        if rounded := TRUE_HALF.get(str(self.trainer.precision)):  # the trainer rounds what was just loaded
            warn_of_rounding(self.base_weights, rounded)
        self.choose_trained(mllm)
        if self.lora is None:
            log.info("original weights: %s", mllm.fingerprint)  # taken before they move: what is kept is found by it
        return mllm

    @override
    def choose_trained(self, mllm: MLLM) -> None:
        numbers = [layer_number(decoder_layers(mllm.language_model), index) for index in self.method.layers]
        self.deepest = None if self.method.reads_answers else max(numbers)
        if self.lora is None:
            mllm.train_fully(head=False)
        else:
            mllm.adapt(self.lora, self.adapter)

    @override
    def take_model(self, mllm: MLLM) -> None:
        """Chooses irrelevant images and strangers, too, as large as the model sees them."""
        super().take_model(mllm)
        needed = self.method.pictures_needed
        if not needed or self.trainer.state.fn != TrainerFn.FITTING:
            return
        keep = None
        if self.clip is not None and self.clip_threshold is not None:
            forget, device = pictures_of(self.data.people(self.data.forget_ids)), self.trainer.strategy.root_device
            keep, self.clip_weights = clip_filter(self.clip, self.clip_threshold, forget, device)
        size, seed = mllm.family.natural_side(mllm.processor), self.drawn_with
        file = Path(self.trainer.default_root_dir) / "similarity.json" if self.trainer.is_global_zero else None
        chosen: dict[tuple[str, int] | None, list[Picture]] = {}  # those of one kind and number are the same
        for images, k in sorted(set(needed.values())):
            chosen[images, k] = choose_pictures(images, k, seed, size, self._own_pictures(images), keep, file)
        self.pictures = chosen.get(needed.get("irrelevant"), [])
        self.strangers = chosen.get(needed.get("strangers"), [])
        self.drawn_doubles = chosen.get(needed.get("double"), [])

    def _own_pictures(self, images: str) -> list[Picture]:
        """The pictures of the benchmark's own people that a kind of images is chosen from."""
        own = {"retain": self.data.retain_ids, "forget": self.data.forget_ids}
        return pictures_of(self.data.people(own.get(images, [])))

    @override
    def on_train_start(self) -> None:
        """Asks the frozen model, once, what every forget answer should look like.

        Questions are encoded as training encodes them. A text-only question is read behind an irrelevant image with
        its text unchanged, so a name in it still says who is meant: for such questions the ideal distribution is what
        the frozen model says anyway, and the regulariser holds on to it. Doubles have names.
        """
        self.prepare_streams()
        if self.variants.own_answers is not None:
            self._report_own_answers(self.variants.own_answers)
        self.references.prepare(self.mllm, self.reference_plan())
        self._prepare_method()
        forget = self.method.streams.get("forget")
        if forget and forget.irrelevant and not self.mllm.moved:  # else resumed: the report came with the checkpoint
            self._report_key_tokens()
        for ideal in (self.ideal, self.references.strangers):
            if ideal is not None and ideal.keep != "off":
                ideal.release()

    def reference_plan(self) -> Plan:
        """All that frozen models are asked, once the streams are ready."""
        other = self.variants.rehearsal or self.variants.names or self.labels == Labels.TEXT
        behind = [] if other else self.strangers
        keep = self.engine.references
        return plan_of(self.method, self.mllm.head, keep, self.pictures, behind, self.every_group, self._doubles())

    def _doubles(self) -> Doubles | None:
        """Who stands for whom, where the method asks about doubles."""
        double = self.method.references.get("double")
        if double is None:
            return None
        streams = self.method.streams
        asked = {name if name == "retain" else "forget" for name, need in streams.items() if need.double}
        people = [person.id for stream in asked for person in self.data.streams.get(stream, [])]
        return Doubles(people, self.drawn_doubles, double.each, self.drawn_with, *self.names)

    def _names(self) -> tuple[dict[str, str], list[str]]:
        """What people are called, and names of strangers, where doubles are asked about without a photo.

        Raises:
            UserError: if there are fewer names than people who need one.
        """
        double, forget = self.method.references.get("double"), self.data.streams["forget"]
        named = [person for person in forget if not person.images]
        if double is None or not named:
            return {}, []
        called = self._called()
        there = read_names(double.names, "model.method.names") if double.names else full_names()
        names = strange_names(there, called, [person_name(person.id) for person in forget])
        if len(names) < (needed := len({person_name(person.id) for person in named})):
            raise UserError(
                f"model.method.names: found {len(names)} names that are like nobody's in the data, expected one for "
                f"each of {needed} people; give a file with more, one a line"
            )
        random.Random(self.drawn_with).shuffle(names)
        asked = [(called.get(person_name(person.id)), vqa) for person in named for vqa in person.vqa]
        if left := [vqa.question for name, vqa in asked if name is None or renamed(vqa, name, names[0]) == vqa]:
            log.warning(
                "doubles: %d of %d questions without photo do not name the person, and are held to what the model says "
                "now, e.g. %r",
                len(left),
                len(asked),
                left[0],
            )
        return called, names

    def _called(self) -> dict[str, str]:
        """What everybody in the data is called, by ID."""
        return names_of((person.id, person.vqa) for person in (*self.data.people(), *self.data.base_people))

    def _forget_names(self) -> list[str]:
        """What the people to be forgotten are called, once each, as far as the data say it."""
        called, people = self._called(), self.data.streams["forget"]
        return list(dict.fromkeys(called[name] for one in people if (name := person_name(one.id)) in called))

    def prepare_streams(self, forget: Sequence[ImageGroup] | None = None, ask: bool = True) -> None:
        """Gets the streams ready that are made of forget questions; a frozen model may be asked for answers.

        Args:
            forget: the forget questions that steps will ask; ``None`` is all of them.
            ask: whether the frozen model is there to be asked; if not, true answers stand for its own.
        """
        people = [*self.data.streams["forget"], *self.data.streams.get("retain", [])]
        self.names = self._names()
        self.variants = ForgetVariants(self.method, self.drawn_with, self.strangers, people, *self.names)
        if self.variants.asks_own:
            self.variants.own_answers = self._own_answers(forget, ask)

    def _report_key_tokens(self) -> None:
        assert self.ideal is not None
        asked = [(vqa, group.image is not None) for group in self.every_group("forget") for vqa in group.vqa]
        self.report.key_tokens, self.report.key_token_example = key_tokens(self.ideal, list(dict.fromkeys(asked)))
        for logger in self.loggers:
            logger.log_metrics({f"key_tokens/{name}": n for name, n in self.report.key_tokens.items()}, step=0)

    def _prepare_method(self) -> None:
        """Lets the method look at model and data, or edit the weights; a resumed run gives it its state back."""
        resumed = self._method_state is not None
        if self.method.takes_steps or not resumed:
            given = self.method.layers, self.processes, resumed, self._forget_names
            prepare = Prepare(self.mllm, self.every_group, *given)
            self.method.before_training(prepare)
        if self._method_state:
            self.method.load_state_dict(self._method_state)
        self._prepared = True
        self.trainer.should_stop = not self.method.takes_steps or self.trainer.should_stop

    def every_group(self, stream: str) -> list[ImageGroup]:
        """All questions of a stream with every image they may be asked about.

        Raises:
            UserError: if the data has no such stream, and the method does not declare it.
        """
        if stream not in self.data.streams and stream not in self.method.streams:
            there = ", ".join(dict.fromkeys([*self.data.streams, *self.method.streams]))
            raise UserError(f"model.method: found no stream {stream!r}, expected one of {there}; add it to its needs")
        if stream in ("strangers", "alternative"):
            return self.variants.everything(stream, self.every_group("forget"))
        groups = [ImageGroup(p.id, i, vqa=p.vqa) for p in self.data.streams[stream] for i in p.images or (None,)]
        return [replace(g, vqa=tuple(replace(vqa, labels=self.labels) for vqa in g.vqa)) for g in groups]

    def _own_answers(self, forget: Sequence[ImageGroup] | None, ask: bool) -> OwnAnswers:
        """What the frozen model answers when asked freely, behind strangers, asked now."""
        every = self.every_group("forget")
        shown = [group for group in every if group.image is not None]
        asked = shown if forget is None else [group for group in forget if group.image is not None]
        questions = tuple({vqa.question: vqa for group in asked for vqa in group.vqa}.values())
        private = [span for vqa in chain.from_iterable(group.vqa for group in every) for span in vqa.private]
        tokens = (len(self.mllm.encoder.encode(vqa, True).answer) for group in shown for vqa in group.vqa)
        longest = max(tokens, default=1)
        answers = OwnAnswers(self.mllm, private, 2 * longest)
        if self._own_answers_state:
            answers.load_state_dict(self._own_answers_state)
        elif questions:
            groups = [ImageGroup("stranger", picture, vqa=questions) for picture in self.strangers]
            answers.prepare(groups) if ask else answers.assume(groups)
        return answers

    def _report_own_answers(self, answers: OwnAnswers) -> None:
        """Says how many of them may stay.

        Raises:
            UserError: if none may.
        """
        dropped, whole = answers.dropped, len(answers)
        log.info("strangers: %d of %d answers hold a private span of the forget set, or nothing", dropped, whole)
        if dropped == whole > 0:
            raise UserError(
                f"model.method: all {whole} answers about strangers hold a private span of the forget set or nothing; "
                "take other pictures (strangers), or set rehearsal to false"
            )
        self.report.strangers = {"answers": whole, "dropped": dropped}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what frozen models said behind single images: on one process, up to ``OwnReference.CHECKPOINT_LIMIT``.

        Else they are asked once more after the run is resumed, in other batches, which round otherwise: what a run then
        ends with is the same up to rounding, not to the last bit.
        """
        super().on_save_checkpoint(checkpoint)
        if self.trainer.world_size == 1:
            checkpoint["said"] = self.references.state_dict()
        if self._prepared:  # a checkpoint of step 0 is written before that
            checkpoint["method"] = self.method.state_dict()
            checkpoint["instruction"] = self.mllm.instruction
            if self.variants.own_answers is not None:
                checkpoint["own_answers"] = self.variants.own_answers.state_dict()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A model trained in full is not the original any more, once it has taken a step."""
        super().on_load_checkpoint(checkpoint)
        self.references.load_state_dict(checkpoint.get("said", {}))
        self._method_state = checkpoint.get("method")
        self.mllm.instruct(checkpoint.get("instruction", self.mllm.instruction))
        self._own_answers_state = checkpoint.get("own_answers")
        self.mllm.mark_trained(checkpoint["global_step"] > 0)

    def merge(self, run: Path) -> None:
        """Writes ``merged/`` from ``adapter/``, if asked."""
        if self.save_merged:
            self.write_merged(run, names.MERGED)

    @override
    def streams(self, content: Groups, step: int) -> Groups:
        """The streams the method asks for: drawn from the data, or made of its forget questions."""
        streams: Groups = {}
        for stream in self.method.streams:
            if stream in content:
                streams[stream] = content[stream]
            elif stream not in ("forget", "retain") and "forget" in content:
                streams[stream] = self.variants.groups(stream, content["forget"], step)
        return streams

    @override
    def loss_terms(self, groups: Groups, totals: Totals) -> Terms:
        """What the method makes of its streams and of what the frozen models say of them."""
        streams = self.method.streams if self.in_passes else groups  # whose turn it is not has no tokens
        layers = self.method.layers
        batches: dict[str, PackedBatch | None] = {}
        tokens: dict[str, AnswerTokens] = {}
        references: dict[tuple[str, str], Reference] = {}
        distributions: dict[tuple[str, str], Tensor] = {}
        whole: Totals = {}
        for stream in streams:
            total = totals.get(stream, (0, 0))
            whole[stream] = total if total[0] else (1, 1)  # a step without a photo asks nothing about strangers
            some = groups.get(stream, [])
            batches[stream] = self.mllm.pack(some) if some else None
            said, full = self.references.look_up(stream, some, batches[stream])
            tokens[stream] = answers_of(self.mllm, batches[stream], whole[stream], layers)
            references |= {(stream, name): reference for name, reference in said.items()}
            distributions |= {(stream, name): p for name, p in full.items()}

        def again(stream: str) -> AnswerTokens:
            check_declared(stream, whole)
            if self.mllm.lockstep is not None:  # processes would wait for passes that others do not make
                raise UserError("trainer.strategy: batch.again passes questions alone, found sharded weights; use ddp")
            return answers_of(self.mllm, batches[stream], whole[stream], layers)

        terms = self.method.loss(Batch(tokens, references, distributions, self.global_step, again))
        check_terms(self.method, terms, all(groups.get(stream) for stream in streams))
        for stream in ("forget", "retain"):  # so that every method can be watched
            if stream in tokens and f"{stream}_ce" not in terms:
                terms[f"{stream}_ce"] = tokens[stream].mean(-tokens[stream].log_probs).detach()
        absent = tokens.keys() - groups.keys()
        return {name: value for name, value in terms.items() if name.partition("_")[0] not in absent}

    @override
    def logged(self, terms: Terms) -> Terms:
        return self.method.logged(terms)

    @override
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Lets the method shape the gradients, too."""
        super().on_before_optimizer_step(optimizer)
        with self.trainer.precision_plugin.forward_context():  # a method may pass questions again, and take their loss
            self.method.before_optimizer_step(self.mllm)

    @override
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Tells the method what came of the step, before a checkpoint can be written of it."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.method.after_step(self.step.logged)
