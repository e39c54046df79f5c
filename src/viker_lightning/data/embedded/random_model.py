"""Random weights in the shape of a published model, to try out what its size takes; they say nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.core_model_loading import revert_weight_conversion

from viker_lightning.errors import UserError
from viker_lightning.storage.files import replacing_folder
from viker_lightning.storage.shards import SHARD, Shards

from .base_model import base_model

STD = 0.02

LLAVA: dict[str, Any] = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
"""What the language model of llava-hf/llava-1.5-7b-hf has that is not transformers' default; its tower has nothing."""

QWEN: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
"""The same of Qwen/Qwen2-VL-7B-Instruct."""

TOWER: dict[str, Any] = {}
"""What the towers have other than transformers' defaults."""


def _tokenizer(special: Sequence[str], end: str, text: dict[str, Any]) -> Any:
    """The packaged tokenizer with more special tokens, whose ids the language model is told."""
    made = AutoTokenizer.from_pretrained(base_model())
    made.add_special_tokens({"additional_special_tokens": [*special]})
    made.eos_token, made.model_max_length = end, 4096
    text |= {"bos_token_id": None, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    return made


def _llava(text: dict[str, Any]) -> tuple[Any, Any]:
    tokenizer = _tokenizer(["<image>"], "</s>", text)
    image = tokenizer.get_vocab()["<image>"]
    published: Any = LlavaConfig().vision_config
    tower: Any = CLIPVisionConfig(**published.to_dict() | TOWER)
    config = LlavaConfig(text_config=text, vision_config=tower, image_token_index=image, tie_word_embeddings=False)
    side, patch = tower.image_size, tower.patch_size
    images = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    more = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>"}
    return config, LlavaProcessor(image_processor=images, tokenizer=tokenizer, patch_size=patch, **more)


def _qwen(text: dict[str, Any]) -> tuple[Any, Any]:
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    ids |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>", *ids.values()], "<|im_end|>", text)
    places: dict[str, Any] = {name: tokenizer.get_vocab()[token] for name, token in ids.items()}
    config = Qwen2VLConfig(text_config=text, vision_config=TOWER, tie_word_embeddings=False, **places)
    images = {"image_processor": Qwen2VLImageProcessor(), "video_processor": Qwen2VLVideoProcessor()}
    return config, Qwen2VLProcessor(tokenizer=tokenizer, **images)


LIKE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llava-1.5-7b": (LlavaForConditionalGeneration, _llava, LLAVA),
    "qwen2-vl-7b": (Qwen2VLForConditionalGeneration, _qwen, QWEN),
}
"""Class of a model, what makes its settings and processor, and the sizes of its language model."""


def write_random_model(like: str, folder: Path, layers: int | None = None, shard: int = SHARD) -> None:
    """Writes a model folder of random bf16 weights, tensor by tensor, with its processor; whole or not at all.

    Weights are normal, those of norms are 1. The tokenizer is the packaged one: of the words that the model has, it
    uses the first.

    Args:
        like: a name in :data:`LIKE`.
        folder: where to; a model that is there is replaced.
        layers: decoder layers; by default as many as the published model has.
        shard: most bytes of a file.

    Raises:
        UserError: if there is no layer, or ``folder`` holds something else than a model.
    """
    if layers is not None and layers < 1:
        raise UserError(f"--layers: found {layers}, expected at least 1; leave it out for as many as published")
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"--out: {folder} is there and is no model folder; give a new one")
    kind, make, text = LIKE[like]
    config, processor = make(text | ({"num_hidden_layers": layers} if layers else {}))
    with torch.device("meta"):
        model = kind._from_config(config, dtype=torch.bfloat16)
    state = model.state_dict()
    norms = {id(w) for name, w in state.items() if w.dim() == 1 and name.endswith(".weight")}
    generator = torch.Generator().manual_seed(0)
    with replacing_folder(folder) as written:
        model.save_pretrained(written, state_dict={})  # the settings alone
        processor.save_pretrained(written)
        shards = Shards(written, shard)
        for name, weight in revert_weight_conversion(model, state).items():  # as they are called in files
            tensor = torch.empty(weight.shape, dtype=torch.bfloat16)
            shards.add(name, tensor.fill_(1) if id(weight) in norms else tensor.normal_(std=STD, generator=generator))
        shards.close()
