"""Scores of one generated answer, from its text alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import Score

REFUSALS = (
    "I don't know who this is.",
    "I'm not able to tell.",
    "I have no information about this person.",
    "That is not something I know.",
    "I can't answer that.",
    "I'm not sure about that.",
    "I don't have that information.",
    "I cannot say anything about this person.",
)
"""What IDK teaches a model to say, and what is known as a refusal when answers are scored."""

# Eight copies: long enough to spare "www", "1000000" and "haha".
_LOOP_IN_WORD = re.compile(r"(\S{1,24}?)\1{7,}")


@cache
def _rouge_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk
    from rouge_score.tokenizers import DefaultTokenizer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=DefaultTokenizer(use_stemmer=True))


@lru_cache(maxsize=16)
def _rouge(prediction: str, reference: str) -> dict[str, Score]:
    """All numbers of a pair at once, since they are asked for one after the other."""
    return dict(_rouge_scorer().score(reference, prediction))


def rouge_l(prediction: str, reference: str, measure: Literal["fmeasure", "recall"] = "fmeasure") -> float:
    """Measure the longest common subsequence of words (ROUGE-L), stemmed as all three benchmarks have it.

    In [0, 1]; 1 means that the answer has the words of the reference in order, 'painted' and 'paints' being one word.
    High is wanted on data to keep, low on data to forget. Only a-z and 0-9 count as letters in `rouge_score`, so a
    text in another script scores 0.
    MLLMU-Bench reports the F-measure (`eval.py` L680, L786-789), TOFU and CLEAR the recall (CLEAR:
    `mm/calculate_metrics.py` L34-43); all three stem.

    Args:
        prediction: The generated answer; an empty one scores 0.
        reference: The true answer.
        measure: Which of the two numbers to return.

    Raises:
        ValueError: If `measure` is neither of the two.
    """
    if measure not in ("fmeasure", "recall"):
        raise ValueError(f"measure must be 'fmeasure' or 'recall', not {measure!r}")
    return float(getattr(_rouge(prediction, reference)["rougeL"], measure))


def rouge_n(prediction: str, reference: str, n: Literal[1, 2]) -> float:
    """Measure the words (n = 1) or pairs of neighbouring words (n = 2) that two texts share: ROUGE-N F, stemmed.

    In [0, 1], with the direction and limits of `rouge_l`; a text of one word has no pair and scores 0 at n = 2.
    MLLMU-Bench reports both beside ROUGE-L (`eval.py` L680, L786-789).

    Args:
        prediction: The generated answer; an empty one scores 0.
        reference: The true answer.
        n: Words in a row.
    """
    return float(_rouge(prediction, reference)[f"rouge{n}"].fmeasure)


def bleu_mllmu(prediction: str, reference: str) -> float:
    """Measure the 4-gram BLEU of one sentence, as MLLMU-Bench does (`eval.py` L57-78).

    Words are split at white space, case matters, and counts of zero are smoothed by nltk's `method1`. In [0, 1], but
    an exact answer under four words stays below 1 (one word: 0.178), so it is not comparable with corpus BLEU.
    High is wanted on data to keep, low on data to forget.

    Args:
        prediction: The generated answer; an empty one scores 0.
        reference: The true answer.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu  # takes a second to import

    words = prediction.split()
    if not words:
        return 0.0
    return float(sentence_bleu([reference.split()], words, smoothing_function=SmoothingFunction().method1))


def keyword_match(prediction: str, keywords: Sequence[str]) -> float:
    """Measure which fraction of what is private an answer gives away: mean over spans of parts found / parts.

    A span with commas counts by the parts between them (`span_parts`): 'born in Brenholm' tells half of 'Brenholm,
    Astavia', which `keyword_match_whole` would not see. Every span weighs the same. Case and the amount of white space
    do not matter. A part must stand on its own, so 'Rio' is not in 'Riot'. In [0, 1]; high is a leak on data to forget
    and recall on data to keep.

    Args:
        prediction: The generated answer.
        keywords: The private spans of the true answer.

    Raises:
        ValueError: If there are no keywords, one of them is blank, or `keywords` is a single string.
    """
    _check_keywords(keywords)
    return sum(keyword_match_whole(prediction, span_parts(keyword)) for keyword in keywords) / len(keywords)


def keyword_match_whole(prediction: str, keywords: Sequence[str]) -> float:
    """Measure which fraction of the private spans an answer gives away whole (FIUBench keyword EM: hits / keywords).

    As `keyword_match`, but all or nothing: punctuation counts as written, so 'Brenholm, Astavia' is neither in
    'Brenholm' nor in 'Brenholm Astavia'.

    Args:
        prediction: The generated answer.
        keywords: The private spans of the true answer.

    Raises:
        ValueError: As `keyword_match`.
    """
    _check_keywords(keywords)
    text = _normalise(prediction)
    return sum(_contains(text, _normalise(keyword)) for keyword in keywords) / len(keywords)


def span_parts(span: str) -> list[str]:
    """Return the parts of a private span, which stand between commas, but for those between the digits of '1,000'.

    Args:
        span: Such as 'Brenholm, Astavia', city and country.

    Returns:
        At least one part; the span itself if it has no comma, or nothing else.
    """
    return [part for part in re.split(r",\s+", span) if part.strip(" ,")] or [span]


def _check_keywords(keywords: Sequence[str]) -> None:
    if isinstance(keywords, str):
        raise ValueError("keywords must be a list of spans: a single string would be read letter by letter")
    if not keywords:
        raise ValueError("no keywords: the fraction found is undefined")


def _normalise(text: str) -> str:
    # NFC, because an accent written as two code points would end a word for `\w`.
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _contains(text: str, span: str) -> bool:
    if not span:
        raise ValueError("a keyword is blank: it would be found in every answer")
    # An edge such as the '$' of '$500' is its own boundary.
    before = r"(?<!\w)" if re.match(r"\w", span) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", span) else ""
    return re.search(before + re.escape(span) + after, text) is not None


def is_refusal(prediction: str, refusals: Sequence[str] = REFUSALS) -> bool:
    """Say whether an answer is a refusal: one of the known sentences, and nothing else.

    Case, white space, the form of apostrophes and the mark at the end do not matter. A refusal in words of its own is
    none here.

    Args:
        prediction: The generated answer.
        refusals: The known sentences.
    """
    said = _plain(prediction)
    return bool(said) and said in map(_plain, refusals)


def _plain(sentence: str) -> str:
    return _normalise(sentence).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").rstrip(".! ")


def cloze_correct(prediction: str, truth: str, words: bool = True) -> bool:
    """Say whether a filled-in blank holds the truth anywhere, without regard to case.

    The mean is an accuracy: high is wanted on data to keep, low on data to forget.

    Args:
        prediction: The generated answer.
        truth: What belongs in the blank.
        words: Whether the truth must stand on its own, as in `keyword_match_whole`. As published (MLLMU-Bench
            `eval.py` L640) it need not: 'art' counts as found in 'parties', '43' in '143 years'.

    Raises:
        ValueError: If the truth is blank, because every answer would be correct.
    """
    if not truth.strip():
        raise ValueError("the truth is blank: every answer would be correct")
    if words:
        return _contains(_normalise(prediction), _normalise(truth))
    return truth.lower() in prediction.lower()


def choice_correct(prediction: str | None, truth: str) -> bool:
    """Say whether the chosen option is the right one, up to case and outer white space.

    The mean is an accuracy: high is wanted on data to keep, chance level on data to forget.

    Args:
        prediction: The chosen option, such as a letter; None if the answer named no option, which is wrong
            (MLLMU-Bench `eval.py` L376).
        truth: The right option.
    """
    return prediction is not None and prediction.strip().casefold() == truth.strip().casefold()


def repetition(text: str) -> float:
    """Measure how much a text loops: 1 - distinct / all word trigrams.

    In [0, 1); near 0 for prose, high for degenerate loops, so low is wanted on every data set. Eight or more copies of
    a piece inside one word ('aaaaaaaa', 'nonono...') count as so many words, because collapsed models also loop
    without spaces. 0.0 for a text under three words.

    Args:
        text: The generated answer.
    """
    words = _LOOP_IN_WORD.sub(lambda loop: f" {' '.join(loop[1] for _ in range(len(loop[0]) // len(loop[1])))} ", text)
    parts = words.split()
    trigrams = list(zip(parts, parts[1:], parts[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
