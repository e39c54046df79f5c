"""Coherence of generated text without a classifier: loops from the text itself, nonsense from a language model.

No single number sees both. A language model finds loops *easier* than prose, and random words do not repeat; the score
is therefore a product, of which one factor drops for each. What is neither a loop nor improbable text, such as a fluent
false answer or one to another question, is coherent here.

What a language model has never read is improbable to it, however well formed: a small one that was taught a few
sentences finds any other worse than shuffled words, a refusal above all. Leave these out (`is_refusal`).

Log probabilities come from a language model that is not the one under test, which may find its own nonsense likely:
the model before unlearning, or any other.
"""

import math
from collections.abc import Iterable
from statistics import median

from .text import repetition


def distinct_3(text: str) -> float:
    """Return the share of word trigrams that are not a repeat: 1 - `repetition`.

    In (0, 1]; low for loops, so high is wanted on every data set. 1.0 for a text under three words.

    Args:
        text: The generated answer.
    """
    return 1 - repetition(text)


def bits_per_character(text: str, log_prob: float) -> float:
    """Return how many bits a language model needs for a character: -log p / (n ln 2).

    At least 0. About 1 for prose under a good model, several for random words or letters, but near 0 for loops, so
    neither direction is good by itself.

    Args:
        text: The text, of n characters.
        log_prob: Sum of the log probabilities of its tokens, in nats.

    Raises:
        ValueError: If there are no characters, or the log probability is positive or NaN.
    """
    if not text:
        raise ValueError("a text of 0 characters has no bits per character")
    if not log_prob <= 0:
        raise ValueError(f"log_prob must be a log probability in nats, at most 0, not {log_prob}")
    return -log_prob / (len(text) * math.log(2)) + 0.0


def usual_bits(texts: Iterable[str], log_probs: Iterable[float]) -> float:
    """Return the median bits per character of texts known to be good, the yardstick of `coherence`.

    Args:
        texts: The benchmark's true answers; blank ones are left out. Bits per character fall with length, so they
            should be as long as the answers to be scored.
        log_probs: Of each text, by the language model that will score the answers, in nats.

    Raises:
        ValueError: If there are no texts, their numbers differ, or a log probability is positive or NaN.
    """
    bits = [bits_per_character(text, lp) for text, lp in zip(texts, log_probs, strict=True) if text.strip()]
    if not bits:
        raise ValueError("no texts: what is usual is unknown")
    return median(bits)


def coherence(text: str, log_prob: float, usual: float) -> float:
    """Return distinct_3 * min(1, usual / bits per character).

    In [0, 1]; high is wanted on every data set. The first factor drops for loops, the second for text the language
    model finds improbable. The form is this project's own. Half of the true answers are below 1 by construction, so
    compare with the score of the model before unlearning, not with 1. Very short answers ('Yes.') need many bits per
    character and score low although nothing is wrong with them.

    Args:
        text: The generated answer; a blank one scores 0.
        log_prob: Sum of the log probabilities of its tokens, in nats, by a model that is not the one under test.
        usual: Bits per character of good text under this model, from `usual_bits`.

    Raises:
        ValueError: If `usual` is not positive, or the log probability is positive or NaN.
    """
    if not usual > 0:
        raise ValueError(f"usual must be positive bits per character, not {usual}")
    if not text.strip():
        return 0.0
    bits = bits_per_character(text, log_prob)
    return distinct_3(text) * (min(1.0, usual / bits) if bits else 1.0)
