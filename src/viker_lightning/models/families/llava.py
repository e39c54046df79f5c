"""LLaVA-1.5: one image, then text; causal attention throughout, so questions can share the image.

Source: transformers ``LlavaForConditionalGeneration``; prompt as MLLMU-Bench trains it
(franciscoliu/MLLMU-Bench data_process/data_preprocess.py L355).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from viker_lightning.data.encoding import Template

MODEL_CLASS = LlavaForConditionalGeneration

TEMPLATE = Template(
    image_prefix="USER: <image>",
    text_prefix="USER:",
    question="\n{question}\nASSISTANT:",
    text_question=" {question}\nASSISTANT:",
    answer=" {answer}",
    image_token="<image>",
)

LANGUAGE_MODEL = r".*language_model.*"  # full-path pattern, for LoRA and freezing


def image_tokens(config: Any) -> int:
    """Number of sequence positions of one image: patches, plus the class token if the model keeps it."""
    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return patches + (config.vision_feature_select_strategy == "full")


def tower_features(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """Vision features before the projector.

    Args:
        model: the model whose tower is used.
        pixel_values: ``[n, 3, H, W]``.

    Returns:
        ``[n, P, d_vision]``; a constant of the image as long as the tower is frozen.
    """
    config = model.config
    states = model.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    features = torch.cat([states[i] for i in ([layers] if isinstance(layers, int) else layers)], dim=-1)
    return features[:, 1:] if config.vision_feature_select_strategy == "default" else features


def last_hidden(
    model: LlavaForConditionalGeneration,
    input_ids: Tensor,
    features: Tensor | None,
    attention_mask: Tensor,
    position_ids: Tensor,
    cache: Cache | None = None,
) -> Tensor:
    """Runs projector and language model.

    Args:
        model: the model.
        input_ids: ``[B, T]``, with image placeholders where ``features`` go.
        features: ``[n, P, d_vision]`` from :func:`tower_features`, in the order of the placeholders.
        attention_mask: bool ``[B, 1, T, cached + T]``.
        position_ids: ``[B, T]``.
        cache: key/values before these tokens; extended in place.

    Returns:
        ``[B, T, d]`` last hidden states.
    """
    images = None
    if features is not None:
        projected = model.model.multi_modal_projector(features)
        images = {"image": BaseModelOutputWithPooling(pooler_output=list(projected))}  # type: ignore[arg-type]
    return model.model(
        input_ids=input_ids,
        mm_encoder_outputs=images,
        attention_mask=attention_mask,
        position_ids=position_ids,
        cache=cache,
        use_cache=cache is not None,
    ).last_hidden_state
