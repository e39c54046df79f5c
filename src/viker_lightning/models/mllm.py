"""A multimodal LLM as unlearning needs it: answer tokens of packed batches, a frozen view, generation, saving."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoProcessor, DynamicCache

from viker_lightning.data.encoding import Encoded, Encoder
from viker_lightning.data.packing import PADDING, PREFIX, PackedBatch, assemble, pack, packed_mask
from viker_lightning.data.records import ImageGroup, Picture
from viker_lightning.errors import UserError

from .families import family_of
from .tokens import AnswerTokens


@dataclass
class Lora:
    """Low-rank adapters on the language model; vision tower and projector are never adapted.

    Attributes:
        r: rank.
        alpha: scaling numerator; the update is ``alpha / r * B A``.
        dropout: dropout before ``A``.
        targets: names of the linear layers, within the language model only.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class MLLM(nn.Module):
    """A transformers model with its processor.

    Args:
        model: a model of one of the families in :mod:`viker_lightning.models.families`.
        processor: its processor (image processor and fast tokenizer).
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.family = family_of(type(model).__name__)
        self.model: Any = model
        self.processor = processor
        self.encoder = Encoder(processor.tokenizer, self.family.TEMPLATE, self.family.image_tokens(model.config))
        self._features: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls, source: str | Path, dtype: str = "float32", revision: str | None = None, trust_remote_code: bool = False
    ) -> MLLM:
        """Loads weights and processor from a folder or a hub id, safetensors only.

        Args:
            source: folder, run folder of a fine-tuning run, or hub id.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            revision: branch, tag or commit on the hub.
            trust_remote_code: whether code that comes with the weights may run.

        Raises:
            UserError: if there is nothing to load, or the architecture has no family.
        """
        source = str(weights_folder(source))
        remote = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            family = family_of((AutoConfig.from_pretrained(source, **remote).architectures or ["unknown"])[0])
            model = family.MODEL_CLASS.from_pretrained(
                source, dtype=getattr(torch, dtype), attn_implementation="sdpa", use_safetensors=True, **remote
            )
            return cls(model, AutoProcessor.from_pretrained(source, **remote))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{source}: no model could be loaded ({reason}); give a model folder or a hub id"
            ) from error

    @property
    def base(self) -> Any:
        """The transformers model, whether adapted or not."""
        return self.model.get_base_model() if self.adapted else self.model

    @property
    def adapted(self) -> bool:
        """Whether LoRA layers are in place."""
        return isinstance(self.model, PeftModel)

    @property
    def head(self) -> nn.Module:
        """The output embedding."""
        return self.base.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.head.parameters()).device

    def train(self, mode: bool = True) -> MLLM:
        """As usual, except that the frozen vision tower stays in evaluation mode."""
        super().train(mode)
        self.base.model.vision_tower.eval()
        return self

    def train_fully(self) -> None:
        """Makes language model and projector trainable and freezes the vision tower."""
        self.requires_grad_(True)
        self.base.model.vision_tower.requires_grad_(False)

    def adapt(self, lora: Lora, adapter: str | Path | None = None) -> None:
        """Puts LoRA on the language model and freezes everything else.

        Args:
            lora: rank, scale and layers.
            adapter: folder of a saved adapter to start from.

        Raises:
            UserError: if a key of the saved adapter is missing or unexpected.
        """
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=rf"{self.family.LANGUAGE_MODEL}\.({'|'.join(lora.targets)})",
        )
        try:
            self.model = get_peft_model(self.model, config)
        except ValueError as error:
            raise UserError(f"lora.targets: no layer of the language model is called any of {lora.targets}") from error
        if adapter is not None:
            saved = load_file(Path(adapter) / "adapter_model.safetensors")
            expected = set(get_peft_model_state_dict(self.model))
            for kind, keys in (("missing", expected - set(saved)), ("unexpected", set(saved) - expected)):
                if keys:
                    raise UserError(
                        f"{adapter}: {len(keys)} {kind} adapter keys, e.g. {sorted(keys)[0]!r}; the adapter "
                        f"was made for another model or LoRA setting than r={lora.r}, targets={list(lora.targets)}"
                    )
            set_peft_model_state_dict(self.model, saved)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within this context the model is the one before unlearning: adapter off, no gradient, evaluation mode.

        Raises:
            UserError: if the model was trained without adapter, because its former weights are gone.
        """
        if not self.adapted and any(p.requires_grad for p in self.parameters()):
            raise UserError("the frozen reference needs LoRA: without an adapter the original weights are overwritten")
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), self.model.disable_adapter() if self.adapted else contextlib.nullcontext():
                yield
        finally:
            self.train(training)

    def features(self, pictures: Sequence[Picture]) -> Tensor | None:
        """Vision-tower features of pictures, computed once for each distinct picture and kept in CPU memory.

        Returns:
            ``[n, P, d_vision]`` on the model's device, or ``None`` for no pictures.
        """
        new = {p.key: p for p in pictures if p.key not in self._features}
        if new:
            pixels = self.processor.image_processor(images=[p.open() for p in new.values()], return_tensors="pt")
            with torch.no_grad():
                values = pixels["pixel_values"].to(self.device, self.head.weight.dtype)
                self._features |= dict(zip(new, self.family.tower_features(self.base, values).cpu(), strict=True))
        return torch.stack([self._features[p.key] for p in pictures]).to(self.device) if pictures else None

    def pack(self, groups: Sequence[ImageGroup]) -> PackedBatch:
        """Packs image groups for this model, on its device."""
        return pack(groups, self.encoder).to(self.device)

    def answer_tokens(self, batch: PackedBatch) -> AnswerTokens:
        """Runs a packed batch and returns what methods see of it."""
        hidden = self.family.last_hidden(
            self.base, batch.input_ids, self.features(batch.images), packed_mask(batch.segments), batch.positions
        )[batch.rows, batch.columns]
        return AnswerTokens(hidden, batch.labels, batch.question, batch.private, batch.n_questions, self.head)

    @torch.no_grad()
    def generate(self, groups: Sequence[ImageGroup], max_new_tokens: int) -> list[list[str]]:
        """Answers the open questions of image groups greedily, all questions of an image behind one prefix.

        Every step feeds one token for each question of a row; key/values of the image and the questions are never
        copied.

        Returns:
            For every group, the answers in the order of its questions.
        """
        was_training = self.training
        self.eval()
        stop = ((self.encoder.eos,), (False,), (False,))
        prompts = [[self.encoder.prompt(q.question, g.image is not None) for q in g.vqa] for g in groups]
        prefixes = [self.encoder.prefix(g.image is not None) for g in groups]
        rows = [[Encoded(prompt, *stop) for prompt in row] for row in prompts]
        batch = assemble(prefixes, rows, [g.image for g in groups if g.image is not None]).to(self.device)
        slots = max(len(row) for row in rows)
        row = batch.rows
        slot = torch.cat([torch.arange(len(r)) for r in rows]).to(self.device)
        segment = torch.full((len(rows), slots), PADDING, device=self.device)
        segment[row, slot] = slot + 1
        position = torch.zeros_like(segment)
        position[row, slot] = batch.positions[row, batch.columns]

        cache = DynamicCache(config=self.base.config.get_text_config())
        hidden = self.family.last_hidden(
            self.base,
            batch.input_ids,
            self.features(batch.images),
            packed_mask(batch.segments),
            batch.positions,
            cache,
        )
        token = self.head(hidden[row, batch.columns]).argmax(-1)
        tokens, columns = [token], batch.segments
        done = token == self.encoder.eos
        while len(tokens) < max_new_tokens and not done.all():
            position += 1
            columns = torch.cat([columns, segment], dim=1)
            step = torch.zeros_like(segment).index_put((row, slot), token)
            mask = (columns[:, None, :] == PREFIX) | (columns[:, None, :] == segment[:, :, None])
            hidden = self.family.last_hidden(self.base, step, None, mask[:, None], position, cache)
            token = self.head(hidden[row, slot]).argmax(-1)
            tokens.append(token)
            done |= token == self.encoder.eos
        self.train(was_training)
        generated = iter(torch.stack(tokens, dim=1).tolist())
        return [[self._text(next(generated)) for _ in r] for r in rows]

    def _text(self, ids: list[int]) -> str:
        return self.encoder.decode(ids[: ids.index(self.encoder.eos)] if self.encoder.eos in ids else ids)

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the adapter as PEFT does (safetensors)."""
        self.model.save_pretrained(str(folder))

    def save(self, folder: str | Path) -> None:
        """Writes full weights and processor (safetensors); refuses while an adapter is in place."""
        if self.adapted:
            raise RuntimeError("merge the adapter before saving full weights")
        self.model.save_pretrained(str(folder))
        self.processor.save_pretrained(str(folder))

    def save_merged(self, folder: str | Path) -> None:
        """Writes full weights with the adapter merged in, leaving this model as it is."""
        copy.deepcopy(self.model).merge_and_unload().save_pretrained(str(folder))
        self.processor.save_pretrained(str(folder))


def weights_folder(source: str | Path) -> str | Path:
    """The weights in a run folder (``<run>/model``), or ``source`` itself if it is a model folder or a hub id.

    Raises:
        UserError: if the run is not finished.
    """
    inside = Path(source) / "model"
    if not inside.is_dir():
        return source
    if not (Path(source) / "results.json").is_file():
        raise UserError(f"{source}: this run is not finished (no results.json); run it again")
    return inside
