"""Key/values in buffers of fixed size: written in place, never copied when tokens are added."""

from collections.abc import Sequence
from typing import Any, Self

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


def _below_one_another(states: Sequence[Tensor], room: int) -> Tensor:
    first = states[0]
    made = first.new_zeros(sum(map(len, states)), first.shape[1], room, first.shape[3])
    for rows, held in zip(made.split([len(one) for one in states]), states, strict=True):
        rows[:, :, : held.shape[2]] = held
    return made


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

    @classmethod
    def joined(cls, config: Any, parts: Sequence[Self], room: int) -> Self:
        """The sequences of several key/values, below one another; the parts are emptied on the way.

        Args:
            config: of the language model.
            parts: what is joined; they may differ in length, and what a shorter one lacks is 0.
            room: positions there is room for, no fewer than the longest has.
        """
        made = cls(config, room)
        for layer, *others in zip(made.buffers, *(part.buffers for part in parts), strict=True):
            layer.keys = _below_one_another([other.keys[:, :, : other.length] for other in others], room)
            layer.values = _below_one_another([other.values[:, :, : other.length] for other in others], room)
            layer.length, layer.is_initialized = max(other.length for other in others), True
            for other in others:
                other.keys = other.values = None
        return made

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
