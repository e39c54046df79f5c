"""Attention of packed sequences: the image attends causally by the fast kernel, only what follows needs a mask.

In a packed sequence most tokens are the image's. One dense mask over everything would make every kernel do twice the
work and keep the fastest ones out; cut in two, the scores computed are the image's lower triangle and the questions'
rows.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "packed_sdpa"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix_tokens: int = 0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention whose first tokens are a causal prefix common to all rows.

    The bool mask ``[B, 1, T', C + T]`` is of the last T' tokens, the prefix left out. Without a prefix everything is as
    transformers' own sdpa takes it.
    """
    p = prefix_tokens
    if not p:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    causal = {**options, "is_causal": True}
    first, _ = sdpa_attention_forward(module, query[:, :, :p], key[:, :, :p], value[:, :, :p], None, **causal)
    if p == query.shape[2]:
        return first, None
    rest, _ = sdpa_attention_forward(module, query[:, :, p:], key, value, attention_mask, **options)
    return torch.cat([first, rest], dim=1), None


def use_packed_attention(language_model: Any) -> None:
    """Makes a language model attend by :func:`packed_attention`; without a prefix that is transformers' own sdpa."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    language_model.set_attn_implementation(NAME)
