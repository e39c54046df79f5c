"""A multimodal LLM as unlearning needs it: answer tokens of packed batches, a frozen view, budgets, saving."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from viker_lightning.data.encoding import Encoded, Encoder, Template
from viker_lightning.data.packing import PackedBatch, assemble, in_budget, packed_mask
from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.errors import UserError
from viker_lightning.storage.runs.names import weights_folder

from .adapter import Lora, add_adapter, projector_paths
from .attention import use_packed_attention
from .dtensor import gather
from .families import Family, choose_family
from .fingerprint import processor_fingerprint, weights_fingerprint
from .instruction import save_instruction, saved_instruction
from .key_values import KeyValues
from .layers import decoder_layers, layer_number, outputs_of, weights_above
from .loading import Weights, architecture_of, load_weights
from .lockstep import Lockstep
from .packing_check import check_group, check_head, check_image_token, packing_is_exact, warn_of_other_prompt
from .tokens import AnswerTokens
from .vision import Vision

log = logging.getLogger(__name__)

MAX_SEQUENCE_TOKENS, MAX_TOKENS = 4096, 16384
"""Default budgets: tokens of one packed sequence, and of all sequences that pass the model together."""


class MLLM(nn.Module):
    """A transformers model with its processor.

    Args:
        model: a model of one of the families in :mod:`viker_lightning.models.families`.
        processor: its processor (image processor and fast tokenizer).
        commit: the commit the weights come from, if they come from the hub.
        family: its family; by default found by the model's class.

    Attributes:
        max_sequence_tokens: most tokens of one packed sequence.
        max_tokens: most tokens that pass the model together.
        vision: features of pictures, and where they are kept.
        lockstep: keeps processes in step that share the weights; ``None`` if this process has all of them.
        instruction: what stands before every question; empty for nothing.
        moved: whether training has overwritten the weights that were loaded.
        trust_remote_code: whether code that comes with these weights, and those of a model beside it, may run.
    """

    def __init__(
        self, model: nn.Module, processor: Any, commit: str | None = None, family: Family | None = None
    ) -> None:
        super().__init__()
        self.family = family or choose_family(type(model).__name__)[0]
        self.model: Any = model
        self.processor = processor
        if self.family.packs:
            use_packed_attention(self.language_model)
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator,union-attr]
        self.encoder = Encoder(processor.tokenizer, self.family.template(processor), room=room)
        check_image_token(model.config, self.encoder)
        self.max_sequence_tokens, self.max_tokens = MAX_SEQUENCE_TOKENS, MAX_TOKENS
        self.vision = Vision(self.family, processor)
        self.commit = commit
        self.moved = self.trust_remote_code = False
        self.instruction = ""
        self._before: Encoder | None = None  # of the model before unlearning, where that had another instruction
        self.lockstep: Lockstep | None = None

    @classmethod
    def load(cls, source: str | Path, weights: Weights = Weights()) -> MLLM:
        """Loads weights and processor as :func:`~viker_lightning.models.loading.load_weights` does.

        Raises:
            UserError: if there is no such model, or it cannot be used.
        """
        made = cls(*load_weights(source, weights))
        made.trust_remote_code = weights.trust_remote_code
        made.instruct(saved_instruction(weights_folder(source), weights.revision))
        made._before = None  # its own instruction is there whoever is asked
        return made

    def set_budgets(self, max_sequence_tokens: int, max_tokens: int) -> None:
        """Sets the most tokens of one packed sequence, and of all sequences that pass the model together."""
        self.max_sequence_tokens, self.max_tokens = max_sequence_tokens, max_tokens

    def use_template(self, template: Template, placeholders: int) -> None:
        """Puts other text around questions and answers; arguments as :class:`Encoder` takes them."""
        self.encoder = Encoder(self.encoder.tokenizer, template, placeholders, self.encoder.room)

    def instruct(self, instruction: str) -> None:
        """Puts an instruction before every question from now on, in the place of any other; empty for none.

        The model before unlearning (:meth:`frozen`) is asked as it was before. What is saved has it beside the weights.

        Raises:
            UserError: if it holds a special token.
        """
        if instruction == self.instruction:
            return
        self.encoder.check(instruction)
        template = self.family.template(self.processor)
        if instruction:
            template = self.family.instructed(self.processor, template, instruction)
        self._before = self._before or self.encoder
        self.instruction = instruction
        self.use_template(template, self.encoder.placeholders)

    def beside(self, source: str, dtype: str, option: str) -> MLLM:
        """Loads another model of the same tokenizer, frozen, to where this one is.

        Args:
            source: model folder, run folder or hub id.
            dtype: of its weights.
            option: the option that names it, for the message.

        Raises:
            UserError: if there is no such model, or it has another tokenizer.
        """
        folder = weights_folder(source)
        if Path(source).exists() and not (Path(folder) / "config.json").is_file():
            raise UserError(f"{option}: {source!r} holds no model; run the gold config first")
        weights = Weights(dtype, trust_remote_code=self.trust_remote_code, family=self.family)
        other = MLLM.load(folder, weights).to(self.device).eval().requires_grad_(False)
        if other.encoder.tokenizer.get_vocab() != self.encoder.tokenizer.get_vocab():
            raise UserError(f"{option}: {source!r} has another tokenizer; make it on the same data and base model")
        other.set_budgets(self.max_sequence_tokens, self.max_tokens)
        return other

    def judge(self, source: str, dtype: str) -> MLLM:
        """Loads another model, of any tokenizer, frozen, to where this one is.

        It is of this one's family if that knows its architecture, else of what this package has for it.

        Args:
            source: model folder, run folder or hub id.
            dtype: of its weights.

        Raises:
            UserError: if there is no such model, or it cannot be used.
        """
        weights = Weights(dtype, trust_remote_code=self.trust_remote_code, family=self.family_for(source))
        other = MLLM.load(source, weights)
        other.set_budgets(self.max_sequence_tokens, self.max_tokens)
        return other.to(self.device).eval().requires_grad_(False)

    def family_for(self, source: str) -> Family | None:
        """This one's family if it is somebody's own and knows another model; else ``None``, for the package's choice.

        Raises:
            UserError: if there is no such model.
        """
        own = self.family if self.family.code else None
        return own if own and own.model_class(architecture_of(source, self.trust_remote_code)) else None

    @property
    def base(self) -> Any:
        """The transformers model, whether adapted or not."""
        return self.model.get_base_model() if self.adapted else self.model

    @property
    def quantized(self) -> bool:
        """Whether the language model is kept in fewer bits."""
        return bool(getattr(self.base, "is_quantized", False))

    @property
    def language_model(self) -> Any:
        """What reads tokens; everything else of the base model but the output embedding sees images."""
        return self.family.language_model(self.base)

    def above(self, deepest: int) -> tuple[list[nn.Parameter], set[int]]:
        """What a loss does not reach that stops at a layer; :func:`~viker_lightning.models.layers.weights_above`."""
        return weights_above(self.language_model, self.head, deepest)

    @property
    def adapted(self) -> bool:
        """Whether LoRA layers are in place."""
        return isinstance(self.model, PeftModel)

    @property
    def head(self) -> nn.Module:
        """The output embedding."""
        return self.base.get_output_embeddings()

    @cached_property
    def stops(self) -> list[int]:
        """Ids that end an answer: the tokenizer's end of sequence, and what the model's generation settings add."""
        more = getattr(self.base.generation_config, "eos_token_id", None)
        return sorted({self.encoder.eos, *([more] if isinstance(more, int) else more or [])})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.head.parameters()).device

    @override
    def train(self, mode: bool = True) -> MLLM:
        """The frozen vision tower stays in evaluation mode."""
        super().train(mode)
        self.family.tower(self.base).eval()
        return self

    def train_fully(self, head: bool = True) -> None:
        """Makes the language model trainable, never the vision tower.

        Args:
            head: whether output embedding (with a tied input embedding) and projector are trained too.
        """
        self.requires_grad_(head)
        self.language_model.requires_grad_(True)
        self.head.requires_grad_(head)
        self.family.tower(self.base).requires_grad_(False)

    def adapt(self, lora: Lora | None, adapter: str | Path | None = None, projector: bool = False) -> None:
        """Puts LoRA on the language model and freezes everything else.

        Args:
            lora: rank, scale and layers; ``None`` takes those of the saved adapter.
            adapter: folder of a saved adapter to start from.
            projector: whether the projector is trained too, in full, and saved with the adapter; for fine-tuning.

        Raises:
            UserError: if a key of the saved adapter is missing or unexpected, or there is no projector to train.
        """
        path = next(name for name, module in self.base.named_modules() if module is self.language_model)
        trained = projector_paths(self.base, self.family.projector(self.base)) if projector else ()
        self.model = add_adapter(self.model, path, lora, adapter, trained, self.commit)
        if adapter is not None:
            self.instruct(saved_instruction(adapter) or self.instruction)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within this context the model is the one before unlearning: adapter and instruction off, evaluation mode.

        Raises:
            UserError: if the model was trained without adapter, because its former weights are gone.
        """
        if self.moved:
            raise UserError(
                "the original model is to be asked something that is not kept, and training without LoRA overwrote it: "
                "set model.engine.references=disk from the beginning and keep the cache folder, or train LoRA"
            )
        instructed, self.encoder = self.encoder, self._before or self.encoder
        try:
            with self.evaluating(), self.model.disable_adapter() if self.adapted else contextlib.nullcontext():
                yield
        finally:
            self.encoder = instructed

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within this context the model is in evaluation mode, and no gradient is kept."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

    def mark_trained(self, moved: bool = True) -> None:
        """Says whether weights have moved: without adapter the model is then not the one before unlearning any more."""
        self.moved = moved and not self.adapted

    def together(self, keep: bool = False) -> contextlib.AbstractContextManager[None]:
        """Within this context a model that is sharded may make passes, as many as each process needs.

        Where weights are shared by processes, all of them enter and leave it together; otherwise it does nothing. See
        :class:`~viker_lightning.models.lockstep.Lockstep`.
        """
        if self.lockstep is None:
            return contextlib.nullcontext()
        assert self.packs is not None  # tried out now, by all processes
        return self.lockstep.together(keep)

    def keep_in_step(self, model: nn.Module, head: nn.Module) -> None:
        """Has processes that share weights take their passes together from now on; ``model`` makes a pass."""
        self.lockstep = Lockstep(model, head, self.encoder.eos)

    def checkpoint_gradients(self) -> None:
        """Keeps only layer inputs for the backward pass and computes the rest again: less memory, more time."""
        self.base.gradient_checkpointing_enable({"use_reentrant": False})

    @cached_property
    def fingerprint(self) -> str:
        """What the frozen model and its processor are: all weights but the adapter's."""
        added = ("lora_", ".modules_to_save.")
        named = [(n, p) for n, p in self.base.named_parameters() if not any(part in n for part in added)]
        frozen = [(n.replace(".base_layer", "").replace(".original_module", ""), p) for n, p in named]
        return weights_fingerprint(frozen) + processor_fingerprint(self.processor)[:8] + self.family.code

    @property
    def image_positions(self) -> int:
        """How many positions every image takes.

        Raises:
            UserError: if that differs from image to image.
        """
        if not self.family.image_labels:
            raise UserError(
                f"data.image_labels: needs LLaVA-1.5, whose images all take as many positions; found "
                f"{type(self.base).__name__}; set it to false"
            )
        return self.family.image_shape(self.base, self.processor, (1, 1))[0]

    def prefix(self, picture: Picture | None) -> list[int]:
        """Token ids before every question about a picture (or, for ``None``, before every question without one)."""
        return self.vision.prefix(self.base, self.encoder, picture)

    @cached_property
    def packs(self) -> bool:
        """Whether questions share their image: so if it changes nothing, which is tried out once on this model.

        Raises:
            UserError: if neither route can be used.
        """
        name, group = type(self.base).__name__, check_group()
        with self.evaluating():
            text = [*self.prefix(None), *self.encoder.question("What is it?", False).prompt]
            check_head(self.base, self.head, torch.tensor([text], device=self.device))
            warn_of_other_prompt(self.processor, self.encoder, self.prefix(group.image), group)
            if not self.family.packs:
                log.info("%s: plain route, one sequence a question (it is of no known family)", name)
                return False
            batch = self.pack([group])
            plain = self.head(self.plain_hidden(batch))
            packed = self.head(self.hidden(batch)[batch.rows, batch.columns])
        autocast = torch.is_autocast_enabled(self.device.type)
        rounded = self.head.weight.dtype != torch.float32 or autocast or self.quantized
        return packing_is_exact(name, plain.float(), packed.float(), rounded)

    def pack(self, groups: Sequence[ImageGroup]) -> PackedBatch:
        """Packs the open questions of image groups for this model, a row a group, on its device."""
        questions = [[self.encoder.encode(vqa, g.image is not None) for vqa in g.vqa] for g in groups]
        return self.assemble([g.image for g in groups], questions)

    def assemble(self, pictures: Sequence[Picture | None], questions: Sequence[Sequence[Encoded]]) -> PackedBatch:
        """Packs encoded questions, a row a picture, on the model's device.

        Raises:
            UserError: if the model has fewer positions than one of them takes behind its image.
        """
        for picture, row in zip(pictures, questions, strict=True):
            for question in row:
                self.encoder.check_room(len(self.prefix(picture)), question)
        return assemble([self.prefix(p) for p in pictures], questions, pictures).to(self.device)

    def hidden(self, batch: PackedBatch, cache: KeyValues | None = None) -> Tensor:
        """``[B, T, d]`` last hidden states of packed sequences."""
        mask = packed_mask(batch.segments, batch.branches)[:, :, batch.shared :]
        features = self.vision.features(self.base, batch.images)
        return self.read(batch.input_ids, batch.positions, mask, batch.pictures, features, cache, batch.shared)

    def read(
        self,
        input_ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        pictures: Sequence[Picture | None],
        features: Sequence[Tensor] = (),
        cache: KeyValues | None = None,
        prefix_tokens: int = 0,
    ) -> Tensor:
        """Runs the language model on sequences, or on what follows key/values.

        Args:
            input_ids: ``[B, T]``.
            positions: ``[B, T]`` counted in tokens.
            mask: bool ``[B, 1, T - prefix_tokens, cached + T]``.
            pictures: the image of every row, be it in these tokens or in the key/values before them.
            features: embeddings of the images in these tokens.
            cache: key/values before these tokens; extended in place.
            prefix_tokens: how many tokens at the beginning of every row attend causally, without a mask.

        Returns:
            ``[B, T, d]`` last hidden states.
        """
        shapes = [None if p is None else self.vision.shape(self.base, p) for p in pictures]
        position_ids = self.family.position_ids(positions, shapes, self.encoder.image_start)
        return self.run(input_ids, position_ids, mask, features, cache, prefix_tokens)

    def run(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        mask: Tensor,
        features: Sequence[Tensor] = (),
        cache: KeyValues | None = None,
        prefix_tokens: int = 0,
    ) -> Tensor:
        """``[B, T, d]`` last hidden states, at ``[B, T]`` or ``[axes, B, T]`` positions as the model counts them."""
        return self.base.model(
            input_ids=input_ids,
            mm_encoder_outputs={"image": self.family.encoded(features)} if features else None,
            attention_mask=mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=cache is not None,
            prefix_tokens=prefix_tokens,
        ).last_hidden_state

    def positions(self, tokens: int, pictures: Sequence[tuple[int, Picture]]) -> Tensor:
        """Positions of one sequence of so many tokens as the model counts them, ``[1, T]`` or ``[axes, 1, T]``.

        Args:
            tokens: T.
            pictures: the images in it, in order, each with the column of its first position.
        """
        starts = [start for start, _ in pictures]
        shapes = [None, *(self.vision.shape(self.base, picture) for _, picture in pictures)]
        found, following = [], 0
        for shape, start, end in zip(shapes, [0, *starts], [*starts, tokens], strict=True):
            counted = torch.arange(following, following + end - start)[None]
            found.append(self.family.position_ids(counted, [shape], following))  # an image stands at its beginning
            following = int(found[-1].amax()) + 1 if end > start else following
        return torch.cat(found, dim=-1)

    def key_values(self, room: int) -> KeyValues:
        """Empty key/values for so many positions."""
        return KeyValues(self.base.config.get_text_config(), room)

    def plain_hidden(self, batch: PackedBatch) -> Tensor:
        """The plain route: every question by itself, as transformers runs the model; what all else must equal.

        Each has its own mask, its own positions and its own vision pass. Of the batch prefixes, questions and pictures
        are used; ``[N, d]`` are the last hidden states at the positions that predict the answer tokens.
        """
        return self._plain(batch)[0]

    def _plain(self, batch: PackedBatch, layers: Sequence[int] = ()) -> list[Tensor]:
        """``[N, d]`` hidden states of the plain route, then the outputs of decoder layers at the same positions."""
        rows = [
            torch.tensor([*batch.prefixes[r], *q.prompt, *q.own[:-1]])
            for r, q in zip(batch.row_of, batch.encoded, strict=True)
        ]
        states: list[list[Tensor]] = [[] for _ in (None, *layers)]
        for part in in_budget([len(row) for row in rows], self.max_tokens, padded=True):
            input_ids = pad_sequence([rows[i] for i in part], batch_first=True).to(self.device)
            mask = pad_sequence([torch.ones_like(rows[i]) for i in part], batch_first=True).to(self.device)
            images = [p.open() for i in part if (p := batch.pictures[batch.row_of[i]]) is not None]
            more = self.family.plain_inputs(self.base, self.processor, images, input_ids) if images else {}
            with self._outputs(layers) as seen:
                last = self.base.model(input_ids=input_ids, attention_mask=mask, use_cache=False, **more)
            hidden = (last.last_hidden_state, *(seen[index] for index in layers))
            for found, whole in zip(states, hidden, strict=True):
                for row, i in zip(whole, part, strict=True):
                    q, prefix = batch.encoded[i], batch.prefixes[batch.row_of[i]]
                    start = len(rows[i]) - len(q.own)
                    found += [row[[c % len(prefix) - 1 for c in q.lead]], row[start : start + len(q.own)]]
        return [torch.cat(found) for found in states]

    def _outputs(self, layers: Sequence[int]) -> contextlib.AbstractContextManager[dict[int, Tensor]]:
        """Notes what comes out of decoder layers in one pass."""
        if not layers:
            return contextlib.nullcontext({})
        known = decoder_layers(self.language_model)
        return outputs_of({index: known[layer_number(known, index)] for index in layers})

    def answer_tokens(self, batch: PackedBatch, layers: Sequence[int] = ()) -> AnswerTokens:
        """Runs a batch and returns what methods see of it.

        Args:
            batch: packed questions.
            layers: decoder layers whose hidden states are wanted too, from 0, or from the end if negative.

        Raises:
            UserError: if there is no such layer.
        """
        if self.packs:
            with self._outputs(layers) as seen:
                last = self.hidden(batch)
            hidden, *more = (h[batch.rows, batch.columns] for h in (last, *(seen[index] for index in layers)))
        else:
            hidden, *more = self._plain(batch, layers)
        return AnswerTokens.from_batch(batch, hidden, self.head, dict(zip(layers, more, strict=True)))

    def save_adapter(self, folder: str | Path, write: bool = True) -> None:
        """Writes the adapter as PEFT does, safetensors only.

        Args:
            folder: where to.
            write: whether this process writes; processes that share the weights must all call this.
        """
        state = self._gathered("lora_", ".modules_to_save.")
        if write:
            self.model.save_pretrained(str(folder), state_dict=state)
            save_instruction(self.instruction, folder)

    def save(self, folder: str | Path, write: bool = True) -> None:
        """Writes full weights and processor as transformers does, safetensors only.

        Args:
            folder: where to.
            write: as for :meth:`save_adapter`.

        Raises:
            RuntimeError: if there is an adapter, which must be merged first.
        """
        if self.adapted:
            raise RuntimeError("merge the adapter before saving full weights")
        state = self._gathered("")
        if write:
            self.model.save_pretrained(str(folder), state_dict=state)
            self.processor.save_pretrained(str(folder))
            save_instruction(self.instruction, folder)

    def _gathered(self, *parts: str) -> dict[str, Tensor] | None:
        """Weights whose names hold one of ``parts``, put together by all processes; ``None`` if none are shared."""
        if self.lockstep is None:
            return None
        state = self.model.state_dict().items()
        return {name: gather(w).cpu() for name, w in state if any(part in name for part in parts)}
