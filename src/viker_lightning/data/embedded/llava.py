"""The embedded model as it begins: a LLaVA small enough to learn people and forget them on a laptop, untrained."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from viker_lightning.storage.cache import built, cache_folder

from . import vision_tower

VERSION = "1"
VOCABULARY = 1600
PAD, EOS, IMAGE = "<pad>", "</s>", "<image>"
LANGUAGE_MODEL: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 400,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def untrained_model(texts: Sequence[str]) -> Path:
    """The folder of the untrained embedded model for the texts of a benchmark; builds it on first use and says so.

    Its vision tower is pretrained, its tokenizer knows the benchmark's words, its language model and projector are
    random.
    """
    made_of = [VERSION, vision_tower.fingerprint(), str(VOCABULARY), repr(LANGUAGE_MODEL), *sorted(set(texts))]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:12]
    folder = cache_folder("models", f"mini-{key}")
    return built(folder, "the untrained embedded model", lambda new: _build(texts, new))


def _build(texts: Sequence[str], folder: Path) -> None:
    tower = CLIPVisionModel.from_pretrained(vision_tower.pretrained_tower())
    tokenizer = train_tokenizer(texts)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_tower.CONFIG),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **LANGUAGE_MODEL,
        ),
        image_token_index=tokenizer.get_vocab()[IMAGE],
        image_seq_length=(vision_tower.SIZE // vision_tower.PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
        model.model.vision_tower.load_state_dict(tower.state_dict(), strict=True)
        pixels = torch.stack([vision_tower.pixels(png) for png in pictures_of_nobody(60)])
        with torch.no_grad():
            states = model.model.vision_tower(vision_tower.normalise(pixels), output_hidden_states=True).hidden_states
            features = states[config.vision_feature_layer][:, 1:]  # all but the class token
        open_projector(model.model.multi_modal_projector, features)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    side = {"height": vision_tower.SIZE, "width": vision_tower.SIZE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size=side, crop_size=side, image_mean=vision_tower.MEAN, image_std=vision_tower.STD
        ),
        tokenizer=tokenizer,
        patch_size=vision_tower.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
    )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def pictures_of_nobody(count: int) -> list[bytes]:
    """So many pictures each of strangers, scenes and pets, none of which is in a benchmark."""
    kinds = [draw for draw, _ in vision_tower.PICTURES.values()]
    return [draw(random.Random(f"projector/{i}"), vision_tower.SIZE)[0] for draw in kinds for i in range(count)]


def open_projector(layers: Any, features: Tensor) -> None:
    """Starts a random projector from standardised ``[n, P, d_vision]`` features: what differs comes through at once."""
    std, mean = torch.std_mean(features.flatten(0, 1), dim=0)
    std = std.clamp_min(0.1 * std.mean())  # a feature that is hardly ever there would be all noise
    with torch.no_grad():
        layers.linear_1.weight.normal_(std=features.shape[-1] ** -0.5).div_(std)
        layers.linear_1.bias.copy_(-layers.linear_1.weight @ mean)
        layers.linear_2.weight.normal_(std=layers.linear_2.in_features**-0.5)


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows the words of a benchmark; every text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [*texts, *(f" {text}" for text in texts), "USER:\nASSISTANT:"]
    tokenizer.train_from_iterator(
        words,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, EOS, IMAGE],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[IMAGE],
        model_max_length=LANGUAGE_MODEL["max_position_embeddings"],
    )
