"""Key/values in buffers of fixed size: written in place, never copied when tokens are added."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin
from typing_extensions import override


class _Layer(CacheLayerMixin):
    is_sliding = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0
        self.keys: Any = None
        self.values: Any = None

    @override
    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = key_states.new_empty(*key_states.shape[:2], self.room, key_states.shape[-1])
        self.values = value_states.new_empty(*value_states.shape[:2], self.room, value_states.shape[-1])
        self.is_initialized = True

    @override
    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    @override
    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    @override
    def get_seq_length(self) -> int:
        return self.length

    @override
    def get_max_length(self) -> int:
        return self.room


class KeyValues(Cache):
    """Key/values of a few sequences, for passes without gradient.

    Args:
        config: of the language model.
        room: positions there is room for.
    """

    def __init__(self, config: Any, room: int) -> None:
        self.buffers = [_Layer(room) for _ in range(config.num_hidden_layers)]
        super().__init__(layers=list(self.buffers))
        self.room = room

    def cut(self, length: int) -> None:
        """Forgets everything behind the first ``length`` positions."""
        for layer in self.buffers:
            layer.length = length

    def resize(self, room: int) -> None:
        """Makes room for so many positions, no fewer than are held; copies once."""
        for layer in self.buffers:
            keys, values = layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length]
            layer.room = room
            layer.lazy_initialization(keys, values)
            layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length] = keys, values
        self.room = room
