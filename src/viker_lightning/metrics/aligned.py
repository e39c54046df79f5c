"""Modality-aligned forgetting: the same knowledge asked with the image and in text, both answers together (UMU-Bench).

The names are those of UMU-Bench's README, the formulae those of its `eval.py` (QDRhhhh/UMU-bench b8e3fe5, end of
`evaluate_classification` and `evaluate_generation`), which prints accuracies times 100. A question is a pair: what was
answered with the image, and what to the same question in text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .mean import SampleMean


def aligned_rouge(with_image: float, text_only: float, data: Literal["forget", "retain"]) -> float:
    """Return one number for the ROUGE-L of both answers of a pair, in [0, 1].

    RLF, on data to forget: (a^2 + b^2) / (a + b), which is near the larger of the two, so that what is still told in
    one modality counts; low is wanted. RLR, on data to keep: 2ab / (a + b), which is near the smaller, so that what is
    lost in one modality counts; high is wanted. 0 if both are 0.

    Args:
        with_image: ROUGE-L of the answer with the image, in [0, 1].
        text_only: That of the answer in text.
        data: `forget` for RLF, `retain` for RLR.

    Raises:
        ValueError: If a score is negative or NaN, or `data` is neither of the two.
    """
    if not (with_image >= 0 and text_only >= 0):
        raise ValueError(f"scores must not be negative or NaN, found {with_image} and {text_only}")
    if data not in ("forget", "retain"):
        raise ValueError(f"data must be 'forget' or 'retain', not {data!r}")
    total = with_image + text_only
    product = with_image**2 + text_only**2 if data == "forget" else 2 * with_image * text_only
    return product / total if total else 0.0


class AlignedAccuracy(SampleMean):
    """AccF or AccR: share of pairs answered wrong both times, or right both times, in [0, 1].

    AccF, on data to forget: wrong with the image *and* wrong in text; high is wanted, 1 being forgotten in either way.
    AccR, on data to keep: right with the image *and* right in text; high is wanted.
    """

    higher_is_better = True

    def __init__(self, data: Literal["forget", "retain"]) -> None:
        """Choose AccF (`forget`) or AccR (`retain`).

        Raises:
            ValueError: If `data` is neither of the two.
        """
        super().__init__()
        if data not in ("forget", "retain"):
            raise ValueError(f"data must be 'forget' or 'retain', not {data!r}")
        self.wanted = data == "retain"

    def update(self, with_image: bool | Sequence[bool], text_only: bool | Sequence[bool]) -> None:
        """Add whether the answer with the image, and the one in text, is right: of one pair, or of a list of each."""
        pairs = zip(_listed(with_image), _listed(text_only), strict=True)
        self._add([float(bool(a) == bool(b) == self.wanted) for a, b in pairs])


class AlignedRouge(SampleMean):
    """RLF or RLR: mean of `aligned_rouge`, in [0, 1]; low is wanted of RLF, high of RLR, so no direction is set."""

    def __init__(self, data: Literal["forget", "retain"]) -> None:
        """Choose RLF (`forget`) or RLR (`retain`)."""
        super().__init__()
        self.data = data

    def update(self, with_image: float | Sequence[float], text_only: float | Sequence[float]) -> None:
        """Add the ROUGE-L of the answer with the image, and of the one in text: of one pair, or of a list of each."""
        pairs = zip(_listed(with_image), _listed(text_only), strict=True)
        self._add([aligned_rouge(a, b, self.data) for a, b in pairs])


def _listed(values: float | Sequence[float]) -> Sequence[float]:
    return [values] if isinstance(values, int | float) else values
