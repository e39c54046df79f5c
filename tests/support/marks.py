"""Which cases a newcomer waits for."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], wanted: Callable[[Any], bool] | Iterable[Any]) -> list[Any]:
    """The same cases as parameters; all but those that are wanted are left to the extended tests."""
    chosen = wanted if callable(wanted) else {*wanted}.__contains__
    rest = pytest.mark.extended
    return [
        case if chosen(case) else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=rest)
        for case in cases
    ]
