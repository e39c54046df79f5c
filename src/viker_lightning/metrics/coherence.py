"""Coherence of generated text without a classifier: loops from the text itself, nonsense from a language model.

No single number sees both. A language model finds loops *easier* than prose, and random words do not repeat; the score
is therefore a product, of which one factor drops for each. What is neither a loop nor improbable text, such as a fluent
false answer or one to another question, is coherent here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from .mean import SampleMean
from .text import repetition

Scorer = Callable[[str], tuple[float, int]]
"""A causal language model: text -> sum of the log probabilities of its tokens in nats, and number of characters scored.

Take it from the *untouched* model, never from the model under test, which may find its own nonsense likely.
"""


def distinct_3(text: str) -> float:
    """Return the share of word trigrams that are not a repeat: 1 - `repetition`.

    In (0, 1]; low for loops, so high is wanted on every data set. 1.0 for a text under three words.

    Args:
        text: The generated answer.
    """
    return 1 - repetition(text)


def bits_per_character(log_prob: float, characters: int) -> float:
    """Return how many bits a language model needs for a character: -log p / (n ln 2).

    At least 0. About 1 for prose under a good model, several for random words or letters, but near 0 for loops, so
    neither direction is good by itself.

    Args:
        log_prob: Sum of the log probabilities of the tokens, in nats.
        characters: How many characters they spell.

    Returns:
        Bits per character.

    Raises:
        ValueError: If there are no characters, or the log probability is positive or NaN.
    """
    if characters < 1:
        raise ValueError(f"a text of {characters} characters has no bits per character")
    if not log_prob <= 0:
        raise ValueError(f"log_prob must be a log probability in nats, at most 0, not {log_prob}")
    return -log_prob / (characters * math.log(2)) + 0.0


def usual_bits(texts: Iterable[str], scorer: Scorer) -> float:
    """Return the median bits per character of texts known to be good, the yardstick of `coherence`.

    Args:
        texts: The benchmark's true answers; blank ones are left out. Bits per character fall with length, so they
            should be as long as the answers to be scored.
        scorer: The language model that will score the answers.

    Raises:
        ValueError: If there are no texts, or the scorer returns what no language model can.
    """
    bits = [bits_per_character(*scorer(text)) for text in texts if text.strip()]
    if not bits:
        raise ValueError("no texts: what is usual is unknown")
    return median(bits)


def coherence(text: str, scorer: Scorer, usual: float) -> float:
    """Return distinct_3 * min(1, usual / bits per character).

    In [0, 1]; high is wanted on every data set. The first factor drops for loops, the second for text the language
    model finds improbable. The form is this project's own. Half of the true answers are below 1 by construction, so
    compare with the score of the model before unlearning, not with 1. Very short answers ('Yes.') need many bits per
    character and score low although nothing is wrong with them.

    Args:
        text: The generated answer; a blank one scores 0.
        scorer: A language model that is not the one under test.
        usual: Bits per character of good text under this scorer, from `usual_bits`.

    Returns:
        The score.

    Raises:
        ValueError: If `usual` is not positive, or the scorer returns what no language model can.
    """
    if not usual > 0:
        raise ValueError(f"usual must be positive bits per character, not {usual}")
    if not text.strip():
        return 0.0
    bits = bits_per_character(*scorer(text))
    return distinct_3(text) * (min(1.0, usual / bits) if bits else 1.0)


class Coherence(SampleMean):
    """Mean of `coherence`, in [0, 1]; high is wanted on every data set."""

    higher_is_better = True

    def __init__(self, scorer: Scorer, usual: float) -> None:
        """Choose the yardstick.

        Args:
            scorer: A language model that is not the one under test.
            usual: Bits per character of good text under this scorer, from `usual_bits`.
        """
        super().__init__()
        self.scorer = scorer
        self.usual = usual

    def update(self, text: str | Sequence[str]) -> None:
        """Add generated answers."""
        texts = [text] if isinstance(text, str) else text
        self._add(coherence(t, self.scorer, self.usual) for t in texts)
