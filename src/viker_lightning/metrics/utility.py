"""Numbers made of other numbers: model utility and the modality gap."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from .checks import as_scores


def model_utility(values: Mapping[str, float] | Iterable[float]) -> float:
    """Return the harmonic mean of scores, TOFU's and CLEAR's model utility.

    Which scores is the benchmark's choice: TOFU takes probability, ROUGE-L recall and truth ratio of retain set, real
    authors and world facts (nine numbers); CLEAR the columns whose names lack "Forget" (`mm/calculate_metrics.py`
    L126), its tables probability and truth ratio only (`mm/build_vllm_table.py` L73-100). In [0, 1] if the scores
    are; high is wanted; a single 0 makes it 0.

    Args:
        values: Scores for which high is good, none negative; a mapping's keys name them in errors.

    Raises:
        ValueError: If there are no scores, or one is negative, infinite or NaN; the message names it.
    """
    named = dict(values) if isinstance(values, Mapping) else {f"score {i}": v for i, v in enumerate(values)}
    if not named:
        raise ValueError("no scores: their harmonic mean is undefined")
    for name, value in named.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}: a harmonic mean needs finite scores that are not negative")
    if 0 in named.values():
        return 0.0
    return len(named) / sum(1 / float(value) for value in named.values())


def modality_gap(with_image: Tensor | Iterable[float], text_only: Tensor | Iterable[float]) -> float:
    """Return the mean score of questions asked with the image minus that of questions asked in text (UMU-Bench).

    In [-1, 1] for scores in [0, 1], NaN where one kind has none. 0 is wanted, neither more nor less: on data to
    forget, a negative gap means that the name still unlocks what the photo no longer does; a positive one, the reverse.

    Args:
        with_image: Scores (accuracies, say) of questions with the image.
        text_only: Those of questions in text, any number of them.

    Raises:
        ValueError: If a score is NaN.
    """
    one, two = (as_scores(scores).flatten() for scores in (with_image, text_only))
    return one.mean().item() - two.mean().item()
