"""The packaged model made wider: more weights, and at first the same answers, so that sizes can be compared.

Every hidden unit, neuron and attention head is there four times, and what reads four copies weighs each a quarter; for
the output layer, which is the embeddings, the norm before it does (Net2Net, Chen, Goodfellow and Shlens, arXiv
1511.05641, section 2). Copies would stay alike for ever. Noise that sums to nothing over them changes no answer and
parts them: within two steps each has a gradient of its own. The paper's noise changes answers a little. The vision
tower stays as it is.
"""

import copy
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration

from viker_lightning.storage.cache import built, cache_folder

from .base_model import base_model, recipe

VERSION = "1"
TIMES = 4
NOISE = 0.02  # as a new layer begins in transformers
WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def model_folder() -> Path:
    """Where the model is, or will be."""
    return cache_folder("models", f"wider-{fingerprint()}")


def wider_model() -> Path:
    """The folder of the packaged model with four times its width, 16 M parameters; builds it on first use."""
    return built(model_folder(), "the embedded model made wider", _build)


def fingerprint() -> str:
    """Identifies what it is made of."""
    made_of = (VERSION, TIMES, NOISE, recipe()["sha256"])
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]


def _build(folder: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(base_model(), dtype=torch.float32)
    AutoProcessor.from_pretrained(base_model()).save_pretrained(folder)
    widen(model, TIMES).save_pretrained(folder)


def widen(model: LlavaForConditionalGeneration, times: int) -> LlavaForConditionalGeneration:
    """Another LLaVA with ``times`` the hidden size, neurons and heads, that answers as this one does, up to rounding.

    It is one with a Llama, in float32 on the CPU; it is left as it is.
    """
    config: Any = type(model.config).from_dict(model.config.to_dict())
    for name in WIDTHS:
        setattr(config.text_config, name, times * getattr(config.text_config, name))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wide = LlavaForConditionalGeneration(config).eval()
        state = {name: _widened(name, weight, times) for name, weight in model.state_dict().items()}
    wide.load_state_dict(state, strict=True)
    wide.generation_config = copy.deepcopy(model.generation_config)
    return wide


def _widened(name: str, weight: Tensor, times: int) -> Tensor:
    """One weight of a wider model, by its name in the state dict.

    ``[rows, columns]`` becomes ``[times * rows, times * columns]``; embeddings and output layer grow in columns alone,
    the projector's first layer in rows alone.
    """
    if "vision_tower" in name:
        return weight
    if "embed_tokens" in name or "lm_head" in name:
        return weight.repeat(1, times)
    if weight.dim() == 1:  # norms and biases; the output layer adds up what copies of its input say
        return weight.repeat(times) / (times if name.endswith("language_model.norm.weight") else 1)
    if "multi_modal_projector.linear_1" in name:  # it reads the tower, which has no copies
        return weight.repeat(times, 1)
    rows, columns = weight.shape
    noise = NOISE * torch.randn(times * rows, times, columns)
    noise = noise - noise.mean(1, keepdim=True)
    return weight.repeat(times, times) / times + noise.flatten(1)
