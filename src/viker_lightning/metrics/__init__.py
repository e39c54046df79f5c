"""Scores of answers: pure functions, and the table that says what each number is (`scores.py`)."""

from .aligned import aligned_correct, aligned_rouge
from .bleu import corpus_bleu, sacrebleu_signature
from .coherent import bits_per_character, coherence, distinct_3, usual_bits
from .gold import forget_quality, forgotten_answers, js_similarity
from .likelihood import answer_probability, exact_memorization, extraction_strength
from .membership import log_prob_moments, loss_score, min_k, min_k_plus_plus, reference_score, zlib_score
from .prediction import FORGOTTEN, KEPT, OVERALL, SPLITS, Prediction, by_split
from .ranking import auroc, distance_to_gold, exposure, key_token_auroc
from .scores import (
    KNOWLEDGE,
    NUMBERS,
    SECTIONS,
    SIGNS,
    Number,
    Score,
    SplitScore,
    Values,
    collect,
    load_scores,
    measure,
    read_numbers,
)
from .split_answers import SplitAnswers
from .text import (
    REFUSALS,
    bleu_mllmu,
    choice_correct,
    cloze_correct,
    is_refusal,
    keyword_match,
    keyword_match_whole,
    repetition,
    rouge_l,
    rouge_n,
    span_parts,
)
from .truth import likeliest_option, option_probability, truth_ratio, truth_ratio_score, truth_ratios
from .utility import modality_gap, model_utility

__all__ = [
    "FORGOTTEN",
    "KEPT",
    "KNOWLEDGE",
    "NUMBERS",
    "OVERALL",
    "REFUSALS",
    "SECTIONS",
    "SIGNS",
    "SPLITS",
    "Number",
    "Prediction",
    "Score",
    "SplitAnswers",
    "SplitScore",
    "Values",
    "aligned_correct",
    "aligned_rouge",
    "answer_probability",
    "auroc",
    "bits_per_character",
    "bleu_mllmu",
    "by_split",
    "choice_correct",
    "cloze_correct",
    "coherence",
    "collect",
    "corpus_bleu",
    "distance_to_gold",
    "distinct_3",
    "exact_memorization",
    "exposure",
    "extraction_strength",
    "forget_quality",
    "forgotten_answers",
    "is_refusal",
    "js_similarity",
    "key_token_auroc",
    "keyword_match",
    "keyword_match_whole",
    "likeliest_option",
    "load_scores",
    "log_prob_moments",
    "loss_score",
    "measure",
    "min_k",
    "min_k_plus_plus",
    "modality_gap",
    "model_utility",
    "option_probability",
    "read_numbers",
    "reference_score",
    "repetition",
    "rouge_l",
    "rouge_n",
    "sacrebleu_signature",
    "span_parts",
    "truth_ratio",
    "truth_ratio_score",
    "truth_ratios",
    "usual_bits",
    "zlib_score",
]
