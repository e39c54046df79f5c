"""Which cases a newcomer waits for, and which a machine cannot have."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch


def quick(cases: Iterable[Any], wanted: Callable[[Any], bool] | Iterable[Any]) -> list[Any]:
    """The same cases as parameters; all but those that are wanted are left to the extended tests."""
    chosen = wanted if callable(wanted) else {*wanted}.__contains__
    rest = pytest.mark.extended
    return [
        case if chosen(case) else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=rest)
        for case in cases
    ]


def _attends_in_bf16() -> bool:
    """Torch packs for the processor there is, and fails where ``ATEN_CPU_CAPABILITY`` says that it is an older one."""
    q = torch.ones(1, 1, 64, 32, dtype=torch.bfloat16)
    try:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    except RuntimeError:
        return False
    return True


bf16_attention = pytest.mark.skipif(not _attends_in_bf16(), reason="torch's attention in bf16 fails with this setting")
