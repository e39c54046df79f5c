"""Modality-aligned forgetting: the same knowledge asked with the image and in text, both answers together (UMU-Bench).

The names are those of UMU-Bench's README, the formulae those of its `eval.py` (QDRhhhh/UMU-bench b8e3fe5, end of
`evaluate_classification` and `evaluate_generation`), which prints accuracies times 100. A question is a pair: what was
answered with the image, and what to the same question in text.
"""

from typing import Literal


def aligned_rouge(with_image: float, text_only: float, data: Literal["forget", "retain"]) -> float:
    """Return one number for the ROUGE-L of both answers of a pair, in [0, 1].

    RLF, on data to forget: (a^2 + b^2) / (a + b), which is near the larger of the two, so that what still leaks in
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


def aligned_correct(with_image: bool, text_only: bool, data: Literal["forget", "retain"]) -> bool:
    """Say whether a pair counts for AccF or AccR, whose share of all pairs is high where it is wanted.

    AccF, on data to forget: wrong with the image *and* wrong in text, forgotten in either way. AccR, on data to keep:
    right both times.

    Args:
        with_image: Whether the answer with the image is right.
        text_only: Whether the answer in text is.
        data: `forget` for AccF, `retain` for AccR.

    Raises:
        ValueError: If `data` is neither of the two.
    """
    if data not in ("forget", "retain"):
        raise ValueError(f"data must be 'forget' or 'retain', not {data!r}")
    return bool(with_image) == bool(text_only) == (data == "retain")
