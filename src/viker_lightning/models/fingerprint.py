"""What a model is, as a short text: equal weights and settings give equal fingerprints, anything else does not."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .dtensor import gather

CHUNK = 2**24
"""Elements looked at together, which bounds the memory this takes."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weights_fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of named weights, in any order: names, types, shapes and every bit of the values.

    The values enter through two 64-bit sums, plain and weighted by place, taken on the device: exact integers, so the
    same on every machine, and as fast as reading the weights.
    """
    lines = sorted(f"{name} {w.dtype} {tuple(w.shape)} {_sums(gather(w.detach()))}" for name, w in weights)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _sums(weight: Tensor) -> list[int]:
    words = weight.contiguous().reshape(-1).view(_WORDS[weight.element_size()])
    total, weighted = 0, 0
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK].long()
        place = torch.arange(start + 1, start + 1 + len(part), device=part.device) * 0x9E3779B1
        total += int(part.sum())
        weighted += int((part * place).sum())
    return [total % 2**64, weighted % 2**64]


def processor_fingerprint(processor: Any) -> str:
    """Hash of a processor: tokenizer and image settings."""
    digest = hashlib.sha256(processor.tokenizer.backend_tokenizer.to_str().encode())
    digest.update(json.dumps(processor.image_processor.to_dict(), sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]
