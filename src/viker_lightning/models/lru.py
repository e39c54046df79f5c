"""Tensors remembered by key, within a limit of bytes."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows its size."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


Value = TypeVar("Value", bound=Sized)


class LRU(Generic[Value]):
    """Remembers values; beyond the limit, in bytes, those longest unused go, but never the newest.

    The limit is one only if values have their memory to themselves: a view keeps all of what it is cut from.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str) -> Value | None:
        """A value, or ``None`` if it is not known any more."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def items(self) -> list[tuple[str, Value]]:
        """Everything that is remembered, what was unused longest first."""
        return list(self._values.items())

    def put(self, key: str, value: Value) -> None:
        """Remembers a value."""
        if key in self._values:
            self.nbytes -= self._values.pop(key).nbytes
        self._values[key] = value
        self.nbytes += value.nbytes
        while self.nbytes > self.limit and len(self._values) > 1:
            self.nbytes -= self._values.popitem(last=False)[1].nbytes
